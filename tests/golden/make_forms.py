#!/usr/bin/env python3
"""The small trained models of the examples, and what PyTorch makes of them: models/*.safetensors and
fixtures/forms.json.

Debian: apt-get install python3-torch; pip install safetensors
Run from the folder `tests`: python3 golden/make_forms.py (some minutes)

Everything they are trained on is made up here, so the weights carry no licence but the project's.
"""

import json
import random

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

torch.manual_seed(3)
random.seed(3)
expected = {}
SIGMOID, TANH, LINEAR = {"name": "sigmoid"}, {"name": "tanh"}, {"name": "linear"}


def save(name, layers, input_name, output_name, tensors):
    description = {"version": 1, "name": name, "license": "MIT OR Apache-2.0",
                   "source": "trained by tests/golden/make_forms.py", "input": input_name,
                   "input_shape": [None, None], "output": output_name, "layers": layers}
    arrays = {k: v.detach().numpy().astype(np.float32).copy() for k, v in tensors.items()}
    save_file(arrays, f"../models/{name}.safetensors", {"recurve": json.dumps(description)})
    print(name, sum(a.nbytes for a in arrays.values()), "bytes")


def embedding(e, mask_zero=False):
    return {"type": "embedding", "input_dim": e.num_embeddings, "output_dim": e.embedding_dim,
            **({"mask_zero": True} if mask_zero else {})}


def recurrent(kind, net, **options):
    return {"type": "recurrent", "units": net.hidden_size, "bias": "double", **options,
            "cell": {"kind": kind, "activation": TANH, "recurrent_activation": SIGMOID, "output_activation": TANH}}


def dense(d, activation):
    return {"type": "dense", "units": d.out_features, "activation": activation}


def named(modules):
    return {f"layers.{n}.{k}": v for n, m in enumerate(modules) for k, v in m.state_dict().items()}


# Many to one: is a review positive or negative? "not" inverts the next word.
words = "<pad> the film plot acting is was and not very good great fun bad dull awful".split()
polarity = {"good": 1, "great": 1, "fun": 1, "bad": -1, "dull": -1, "awful": -1}


def review():
    total, text = 0, []
    for n in range(random.choice((1, 3, 5))):
        adjective, turned = random.choice(list(polarity)), random.random() < 0.4
        total += -polarity[adjective] if turned else polarity[adjective]
        very = ["very"] if random.random() < 0.3 else []
        text += (["and"] if n else []) + ["the", random.choice(("film", "plot", "acting")), random.choice(("is", "was"))]
        text += (["not"] if turned else []) + very + [adjective]
    return text, float(total > 0)


def batch_of(texts, vocabulary):
    width = max(map(len, texts))
    ids = torch.tensor([[vocabulary.index(w) for w in t] + [0] * (width - len(t)) for t in texts])
    return ids, torch.tensor([len(t) for t in texts])


e, r, d = nn.Embedding(len(words), 8), nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 1)
modules = nn.ModuleList((e, r, d))


def sentiment(texts):
    ids, lengths = batch_of(texts, words)
    _, (h, _) = r(pack_padded_sequence(e(ids), lengths, batch_first=True, enforce_sorted=False))
    return torch.sigmoid(d(h[-1]))[:, 0]


optimiser = torch.optim.Adam(modules.parameters(), 0.01)
for step in range(900):
    texts, labels = zip(*(review() for _ in range(64)))
    loss = nn.functional.binary_cross_entropy(sentiment(texts), torch.tensor(labels))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
texts, labels = zip(*(review() for _ in range(300)))
with torch.no_grad():
    p = sentiment(texts)
print("sentiment: loss", loss.item(), "accuracy", ((p > 0.5).float() == torch.tensor(labels)).float().mean().item())
save("sentiment", [embedding(e, True), recurrent("lstm", r), dense(d, SIGMOID)], "tokens", "probability", named(modules))
expected["sentiment"] = {"vocabulary": words, "texts": [" ".join(t) for t in texts[:40]],
                         "labels": labels[:40], "probabilities": p[:40].tolist()}

# One to many: names of stars, letter by letter.
stars = """sirius canopus arcturus vega capella rigel procyon achernar betelgeuse hadar altair aldebaran antares spica
pollux fomalhaut deneb mimosa regulus adhara shaula castor gacrux bellatrix elnath miaplacidus alnilam alnair alioth
alnitak dubhe mirfak wezen sargas kaus avior alkaid atria alhena peacock alsephina mirzam alphard polaris hamal algieba
diphda mizar nunki menkent mirach alpheratz rasalhague kochab saiph denebola algol tiaki muhlifain aspidiske suhail
alphecca mintaka sadr eltanin schedar naos almach caph izar dschubba larawag merak ankaa girtab enif scheat sabik""".split()
letters = ["$", "^", *sorted(set("".join(stars)))]
e, r, d = nn.Embedding(len(letters), 12), nn.GRU(12, 64, batch_first=True), nn.Linear(64, len(letters))
modules = nn.ModuleList((e, r, d))
lines = [[letters.index(c) for c in f"^{s}$"] for s in stars]
width = max(map(len, lines))
ids = torch.tensor([line + [0] * (width - len(line)) for line in lines])
optimiser = torch.optim.Adam(modules.parameters(), 0.01)
for step in range(400):
    logits = d(r(e(ids[:, :-1]))[0])
    keep = torch.cat([torch.ones_like(ids[:, :1]), ids[:, 1:-1]], 1) != 0
    loss = nn.functional.cross_entropy(logits[keep], ids[:, 1:][keep])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
print("stars: loss", loss.item())
save("stars", [embedding(e), recurrent("gru", r, return_sequences=True), dense(d, LINEAR)], "tokens", "logits",
     named(modules))
prompts, greedy = ["^si", "^al", "^be", "^po", "^mi", "^ca", "^en", "^ve"], []
for prompt in prompts:
    with torch.no_grad():
        y, h = r(e(torch.tensor([[letters.index(c) for c in prompt]])))
        out = []
        for _ in range(16):
            out.append(d(y[:, -1]).argmax(-1).item())
            y, h = r(e(torch.tensor([[out[-1]]])), h)
    greedy.append("".join(letters[i] for i in out))
print(greedy)
expected["stars"] = {"letters": "".join(letters), "names": stars, "prompts": prompts, "greedy": greedy}

# Encoder and decoder: numbers in words to digits.
ones = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen""".split()
tens = "twenty thirty forty fifty sixty seventy eighty ninety".split()
source = ["<pad>", *ones, *tens, "hundred"]
target = ["$", "^", *"0123456789"]


def spoken(n):
    if n >= 100:
        return [ones[n // 100], "hundred"] + (spoken(n % 100) if n % 100 else [])
    if n >= 20:
        return [tens[n // 10 - 2]] + ([ones[n % 10]] if n % 10 else [])
    return [ones[n]]


e1, r1 = nn.Embedding(len(source), 16), nn.LSTM(16, 48, batch_first=True)
e2, r2, d2 = nn.Embedding(len(target), 8), nn.LSTM(8, 48, batch_first=True), nn.Linear(48, len(target))
modules = nn.ModuleList((e1, r1, e2, r2, d2))


def encode(numbers):
    ids, lengths = batch_of([spoken(n) for n in numbers], source)
    return r1(pack_padded_sequence(e1(ids), lengths, batch_first=True, enforce_sorted=False))[1]


optimiser = torch.optim.Adam(modules.parameters(), 0.005)
everything = list(range(1000))
for step in range(1500):
    numbers = random.sample(everything, 128)
    digits = [[target.index(c) for c in f"^{n}$"] for n in numbers]
    ids = torch.tensor([x + [0] * (5 - len(x)) for x in digits])
    logits = d2(r2(e2(ids[:, :-1]), encode(numbers))[0])
    keep = torch.cat([torch.ones_like(ids[:, :1]), ids[:, 1:-1]], 1) != 0
    loss = nn.functional.cross_entropy(logits[keep], ids[:, 1:][keep])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
with torch.no_grad():
    state = encode(everything)
    token, out = torch.full((1000, 1), 1), []
    for _ in range(4):
        y, state = r2(e2(token), state)
        token = d2(y[:, -1]).argmax(-1, keepdim=True)
        out.append(token)
got = ["".join(target[i] for i in row).split("$")[0] for row in torch.cat(out, 1).tolist()]
right = sum(g == str(n) for n, g in enumerate(got))
print("numbers: loss", loss.item(), "right", right, "of 1000")
save("numbers_encoder", [embedding(e1, True), recurrent("lstm", r1)], "words", "state", named((e1, r1)))
save("numbers_decoder", [embedding(e2), recurrent("lstm", r2, return_sequences=True), dense(d2, LINEAR)], "digits",
     "logits", named((e2, r2, d2)))
expected["numbers"] = {"source": source, "target": "".join(target), "spoken": [" ".join(spoken(n)) for n in everything],
                       "digits": got}
with open("fixtures/forms.json", "w") as f:
    json.dump(expected, f, indent=0)
    f.write("\n")
