"""The books of tests/container/run: which updates the simulated VK gives, who must get them, and whether they did: each at least once,
none to another, those of a chat in order. Deliberately absent: containers.
"""
import hashlib, json, os
from collections import Counter

GROUP = 218730916
CHATS = 40
NAMES = ("commands", "messages", "buttons")


def updates(count, first=0, padding=0, only=None):
    """Invented updates as VK sends them, and for each event its id, its chat and its destination."""
    told, due = [], []
    for number in range(first, first + count):
        kind = only or ("messages", "commands", "messages", "buttons", "messages", "nobody")[number % 6]
        peer, user = 2_000_000_001 + number * 7 % CHATS, 1000 + number % 50
        event_id = hashlib.sha1(f"container {number}".encode()).hexdigest()
        text = ("/help " if kind == "commands" else "") + f"№{number} " + "я" * padding
        bare = {"user_id": user, "peer_id": peer, "conversation_message_id": number + 1}
        if kind == "buttons":
            # Some that the handler will refuse, while it is told to.
            call = "refuse" if number % 60 == 3 else "test"
            name, body = "message_event", {**bare, "event_id": f"{number:012x}", "payload": {"call_action": call}}
        elif kind == "nobody":
            name, body = "message_reaction_event", {"reacted_id": user, "peer_id": peer, "cmid": number + 1, "reaction_id": 1}
        else:
            message = {"date": 1709107923, "from_id": user, "id": 0, "out": 0, "peer_id": peer, "random_id": 0, "text": text}
            message |= {"attachments": [], "fwd_messages": [], "conversation_message_id": number + 1}
            name, body = "message_new", {"message": message, "client_info": {"keyboard": True, "lang_id": 0}}
        told.append({"group_id": GROUP, "type": name, "event_id": event_id, "v": "5.199", "object": body})
        if kind != "nobody":
            due.append((event_id, peer, kind))
    return told, due


def write(told, file):
    with open(file, "w") as out:
        out.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in told)


def taken(folder, name):
    """What a handler wrote down, in order; a line that is being written is none yet."""
    path = os.path.join(folder, f"{name}.ndjson")
    if not os.path.exists(path):
        return []
    with open(path) as book:
        return [json.loads(line) for line in book if line.endswith("\n")]


def count(folder, name):
    """How many requests a handler has written down."""
    path = os.path.join(folder, f"{name}.ndjson")
    return sum(1 for _ in open(path)) if os.path.exists(path) else 0


def balance(folder, due, names=NAMES):
    """What is wrong, in sentences; and how many deliveries were due and how many came again."""
    wrong, repeats = [], 0
    place = {event_id: number for number, (event_id, _, _) in enumerate(due)}
    for name in names:
        mine = {event_id: peer for event_id, peer, kind in due if kind == name}
        bodies, last = {}, {}
        for one in taken(folder, name):
            event_id, event = one["id"], json.loads(one["body"])
            if event["event_id"] != event_id or event_id not in mine:
                wrong.append(f"{name} got {event_id}, which was not for it")
            elif event_id in bodies:
                repeats += 1
                if bodies[event_id] != one["body"]:
                    wrong.append(f"{name} got {event_id} twice, with two bodies")
            else:
                bodies[event_id] = one["body"]
                peer = mine[event_id]
                # A dead letter that was replayed has lost its turn.
                if one["replay"] is None:
                    if place[event_id] < last.get(peer, -1):
                        wrong.append(f"{name} got {event_id} of {peer} after a later one")
                    last[peer] = place[event_id]
        missing = [event_id for event_id in mine if event_id not in bodies]
        wrong += [f"{name} never got {event_id}" for event_id in missing]
    return wrong, len(due), repeats, Counter(kind for _, _, kind in due)
