# event-router as a container: one static binary on CA roots, nothing else. Base images are arguments, so that the same
# file builds on local ones.
ARG BUILD_IMAGE=rust:1-slim-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
# Dependencies first: this layer is kept until the lock file changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches tests/it \
    && echo 'fn main() {}' | tee src/main.rs benches/conversion.rs tests/it/main.rs > src/lib.rs \
    && cargo build --release --locked --bin event-router \
    && rm -rf src benches tests
COPY src src
RUN mkdir -p benches tests/it && touch benches/conversion.rs tests/it/main.rs src/main.rs src/lib.rs \
    && cargo build --release --locked --bin event-router \
    && mkdir -p /out/data && cp target/release/event-router /out/

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="toaster.event-routing-service" \
      org.opencontainers.image.description="Takes the events of a VK community from Bots Long Poll and forwards them, durably and in order per chat" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out/event-router /usr/local/bin/event-router
COPY --from=build --chown=65532:65532 /out/data /data
COPY docs/event-router.example.toml /etc/event-router/event-router.toml
ENV EVENT_ROUTER_CONFIG=/etc/event-router/event-router.toml \
    EVENT_ROUTER__OUTBOX__DIR=/data
USER 65532:65532
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=40s --retries=3 CMD ["/usr/local/bin/event-router", "health"]
ENTRYPOINT ["/usr/local/bin/event-router"]
CMD ["run"]
