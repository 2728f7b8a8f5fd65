# event-router as a container: one static binary, the roots of public CAs, a configuration; no shell, nothing else.
# Deliberately absent: BuildKit's own words (`RUN --mount`, heredocs), so that every engine builds it.
#
#   docker build -t toaster.event-routing-service .
#
# The base images are arguments, so that the same file builds where no public registry is reached: tests/container/run
# makes a BUILD_IMAGE that has the crates in it, and sets nothing else. RUNTIME_IMAGE may be any image, or none (scratch).
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=scratch

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
# Static, so that the last stage needs no libc. glibc, not musl: the image of Rust has its libc.a, nothing is to be
# installed. Its resolver is part of libc.a since 2.34 (files and dns, what a container has: the engine's own DNS answers);
# only other sources of nsswitch.conf (LDAP and the like) would need a shared libc. A target that is named keeps the flag
# away from procedural macros, which must be shared objects.
ENV RUSTFLAGS="-C target-feature=+crt-static"
# Dependencies first: this layer is kept until Cargo.toml or Cargo.lock change. Tests, benches and examples are not built
# here and their files are not here: their sections are left out. Nothing but the dependencies is kept of this build.
COPY Cargo.toml Cargo.lock ./
RUN awk '/^\[/ { skip = /^\[\[(test|bench|example)\]\]/ } !skip' Cargo.toml > stripped && mv stripped Cargo.toml \
    && rustc -vV | sed -n 's/^host: //p' > /target \
    && mkdir src && echo 'fn main() {}' > src/main.rs && : > src/lib.rs \
    && cargo build --release --locked --bin event-router --target "$(cat /target)" \
    && rm -r src
COPY src src
# Files come with the times of the checkout, which are older than the build above: they are made newer.
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin event-router --target "$(cat /target)" \
    && mkdir -p /out/etc/ssl/certs /out/etc/event-router /out/usr/local/bin /out/data \
    && cp "target/$(cat /target)/release/event-router" /out/usr/local/bin/ \
    && cp -L /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
    && echo 'event-router:x:65532:65532:event-router:/data:/usr/sbin/nologin' > /out/etc/passwd \
    && echo 'event-router:x:65532:' > /out/etc/group

FROM ${RUNTIME_IMAGE}
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="toaster.event-routing-service" \
      org.opencontainers.image.description="Takes the events of a VK community from Bots Long Poll and forwards them, durably and in order per chat" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/etc /etc
COPY --from=build /out/usr/local/bin/event-router /usr/local/bin/event-router
COPY docs/event-router.example.toml /etc/event-router/event-router.toml
# A new volume takes its owner from this directory.
COPY --from=build --chown=65532:65532 /out/data /data
ENV PATH=/usr/local/bin \
    EVENT_ROUTER_CONFIG=/etc/event-router/event-router.toml \
    EVENT_ROUTER__OUTBOX__DIR=/data
# As older deployments passed them. What is given here STAYS IN THE HISTORY OF THE IMAGE, for whoever gets the image: better
# give TOKEN_FILE (a secret) and GROUPID when it is run. Empty ones count as not set.
ARG TOKEN=
ARG GROUPID=
ENV TOKEN=${TOKEN} \
    GROUPID=${GROUPID}
WORKDIR /data
USER 65532:65532
VOLUME /data
STOPSIGNAL SIGTERM
# Alive, not ready: an outage of VK or of a handler restarts nothing. `docker run` waits for an outbox that is in use for 30
# seconds before it gives up.
HEALTHCHECK --interval=15s --timeout=5s --start-period=40s --retries=3 CMD ["/usr/local/bin/event-router", "health"]
ENTRYPOINT ["/usr/local/bin/event-router"]
CMD ["run"]
