"""A customer of the endpoint made of the official `openai` package, in an environment of its own.

    python openai_client.py BASE_URL TOKEN LOCAL_MODEL BOUGHT_MODEL QUESTION

Prints one JSON object of what it saw.
"""

import json
import sys

import openai

base_url, token, local, bought, question = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key=token)
messages = [{"role": "user", "content": question}]
seen = {"models": [model.id for model in client.models.list().data]}


def stream(model):
    text, cost = "", None
    for chunk in client.chat.completions.create(
            model=model, messages=messages, max_tokens=40, temperature=0, stream=True,
            stream_options={"include_usage": True}):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        if chunk.usage is not None:
            cost = chunk.usage.cost_msats
    return {"text": text, "cost_msats": cost}


whole = client.chat.completions.with_raw_response.create(
    model=local, messages=messages, max_tokens=40, temperature=0)
seen["local"] = {"text": whole.parse().choices[0].message.content,
                 "cost": whole.headers["x-pylon-cost-msats"]}
seen["local_stream"] = stream(local)
seen["completion"] = client.completions.create(model=local, prompt=question,
                                               max_tokens=20).choices[0].text
whole = client.chat.completions.with_raw_response.create(
    model=bought, messages=messages, max_tokens=40, temperature=0)
seen["bought"] = {"text": whole.parse().choices[0].message.content,
                  "cost": whole.headers["x-pylon-cost-msats"]}
seen["bought_stream"] = stream(bought)
try:
    openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0).models.list()
except openai.AuthenticationError as err:
    seen["wrong_token"] = err.status_code
try:
    client.chat.completions.create(model=local, messages=messages, n=2)
except openai.BadRequestError as err:
    seen["bad_request"] = err.code
print(json.dumps(seen))
