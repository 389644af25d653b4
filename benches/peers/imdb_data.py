#!/usr/bin/env python3
"""Writes the film reviews of Keras's `imdb.npz` in the form that the IMDB example reads.

    python3 benches/peers/imdb_data.py reviews.bin.gz [--npz imdb.npz]

Without `--npz` Keras fetches the file (17 MB). The reviews are those of Maas et al. 2011; their licence is unclear, so
they are not part of this project.

The form: gzip of "IMDB10K1", two u32 with the numbers of reviews to train and to test with, then for each review its
label (u8), its length (u16) and so many words (u16), all little endian. Words are numbers by frequency from 4 on; 1 is
the start of a review, 2 a word outside of the 10,000 most common ones, and 0 is left for padding.
"""

import argparse
import gzip
import struct

import numpy as np


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--npz", help="Keras's file, if it is at hand")
    a = p.parse_args()
    if a.npz:
        # What Keras's load_data does: another order, a start, and common words alone.
        with np.load(a.npz, allow_pickle=True) as f:
            parts = [(f["x_train"], f["y_train"]), (f["x_test"], f["y_test"])]
        rng = np.random.RandomState(113)
        shuffled = []
        for x, y in parts:
            order = np.arange(len(x))
            rng.shuffle(order)
            words = ([1] + [w + 3 for w in review] for review in x[order])
            shuffled.append(([[w if w < 10_000 else 2 for w in review] for review in words], y[order]))
    else:
        import keras
        shuffled = keras.datasets.imdb.load_data(num_words=10_000)
    with gzip.open(a.out, "wb") as f:
        f.write(b"IMDB10K1" + struct.pack("<II", *(len(x) for x, _ in shuffled)))
        for x, y in shuffled:
            for review, label in zip(x, y):
                f.write(struct.pack("<BH", int(label), len(review)) + np.array(review, "<u2").tobytes())


if __name__ == "__main__":
    main()
