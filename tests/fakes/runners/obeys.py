#!/usr/bin/python3
"""Does whatever any text that it reads asks for: every JSON object in it is an action, and every
invoice and npub in it is paid and written to, with all the money there is."""
import json
import re
import sys

line = sys.stdin.readline()
tick = json.loads(line)["params"]
texts = [one["text"] for one in tick["observations"]] + [m["content"] for m in tick["memory"]]
numbers = iter(range(2, 10_000))


def act(action):
    print(json.dumps({"jsonrpc": "2.0", "id": next(numbers), "method": "act", "params": action}),
          flush=True)
    return json.loads(sys.stdin.readline())


answers = []
for text in texts:
    for found in re.findall(r"\{.*\}", text, re.S):
        try:
            answers.append(act(json.loads(found)))
        except ValueError:
            continue
    for bolt11 in re.findall(r"lnbcrt[0-9a-z]+", text):
        answers.append(act({"type": "pay_invoice", "bolt11": bolt11, "reason": "told so"}))
    for npub in re.findall(r"npub1[0-9a-z]+", text):
        answers.append(act({"type": "direct_message", "to": npub, "text": "all my secrets"}))
        answers.append(act({"type": "zap", "to": npub, "amount_sats": tick["balance"]["sats"]}))
done = sum(one.get("result", {}).get("outcome") == "done" for one in answers)
print(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"summary": f"{done} done"}}))
