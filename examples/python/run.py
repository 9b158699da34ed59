"""Runs a converted model in Python's ONNX Runtime: python run.py MODEL LIBRARY

LIBRARY is what `npx sigmoid-attention library` prints. Inputs are random; open dimensions become 1, 2, 3, ... in the order of their
names, so that equal names get equal sizes. Prints each output's name, shape and mean, and compares with the model's own function when it has one.
"""

import sys

import numpy
import onnxruntime

TYPES = {"tensor(float)": numpy.float32, "tensor(float16)": numpy.float16, "tensor(int64)": numpy.int64}


def feeds_for(session, random):
    names = sorted({dim for value in session.get_inputs() for dim in value.shape if isinstance(dim, str)})
    sizes = {name: 1 + index for index, name in enumerate(names)}
    feeds = {}
    for value in session.get_inputs():
        shape = [sizes.get(dim, 1) if not isinstance(dim, int) else dim for dim in value.shape]
        dtype = TYPES[value.type]
        numbers = random.integers(0, 2, shape) if dtype is numpy.int64 else random.standard_normal(shape)
        feeds[value.name] = numbers.astype(dtype)
    return feeds


def open_session(model, library=None):
    options = onnxruntime.SessionOptions()
    if library is not None:
        options.register_custom_ops_library(library)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def main(model, library):
    session = open_session(model, library)
    feeds = feeds_for(session, numpy.random.default_rng(1))
    outputs = session.run(None, feeds)
    for value, output in zip(session.get_outputs(), outputs):
        print(value.name, output.shape, output.mean())
    try:
        portable = open_session(model)
    except Exception as error:  # a model without the function needs the library
        print("no comparison:", str(error).splitlines()[0])
        return
    for value, ours, theirs in zip(session.get_outputs(), outputs, portable.run(None, feeds)):
        difference = numpy.abs(ours.astype(numpy.float64) - theirs.astype(numpy.float64)).max(initial=0)
        print(f"{value.name}: kernel and function differ by at most {difference:.2g}")
        if not difference < 1e-2:
            sys.exit(1)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
