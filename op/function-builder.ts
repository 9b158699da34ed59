/**
 * Emits nodes of a model-local function: one method for each standard operator that the portable body uses, in the form
 * that the model's opset asks for (axes as attribute or as input, and so on). Knows nothing of attention.
 */

import proto from 'onnx-proto';

import { fromNumbers, type Tensor } from './tensor.js';
import { tensorProto } from './tensor-proto.js';

const { AttributeProto, GraphProto, NodeProto, ValueInfoProto } = proto.onnx;
const AttributeType = proto.onnx.AttributeProto.AttributeType;
const DataType = proto.onnx.TensorProto.DataType;

/** Name of a value inside the function. */
export type Value = string;

/** The operators that the body applies without attributes. */
type PlainOperator =
  | 'Abs'
  | 'Add'
  | 'CastLike'
  | 'Div'
  | 'Equal'
  | 'Exp'
  | 'Gather'
  | 'Identity'
  | 'IsNaN'
  | 'Less'
  | 'Log'
  | 'MatMul'
  | 'Max'
  | 'Min'
  | 'Mul'
  | 'Neg'
  | 'NonZero'
  | 'Not'
  | 'Or'
  | 'Range'
  | 'Reshape'
  | 'Shape'
  | 'Sqrt'
  | 'Sub'
  | 'Tanh'
  | 'Where';

export class FunctionBuilder {
  readonly #nodes: proto.onnx.NodeProto[] = [];
  readonly #outputs: string[] = [];
  readonly #constants = new Map<string, Value>();
  readonly #applied = new Map<string, Value>();
  readonly #names: { count: number };

  constructor(
    readonly opset: number,
    names = { count: 0 },
  ) {
    this.#names = names;
  }

  /** The same operator on the same values is emitted once. */
  apply(opType: PlainOperator, ...inputs: Value[]): Value {
    const key = `${opType}(${inputs.join()})`;
    const value = this.#applied.get(key) ?? this.node(opType, inputs);
    this.#applied.set(key, value);
    return value;
  }

  /** Gives a value the name of one of the function's outputs. */
  output(name: string, value: Value): void {
    this.#nodes.push(NodeProto.create({ opType: 'Identity', input: [value], output: [name] }));
    this.#outputs.push(name);
  }

  /** The nodes that the outputs depend on, in order. */
  liveNodes(): proto.onnx.NodeProto[] {
    const read = new Set(this.#outputs);
    const live = this.#nodes.toReversed().filter((node) => {
      if (!node.output.some((name) => read.has(name))) return false;
      valuesRead(node).forEach((name) => read.add(name));
      return true;
    });
    return live.reverse();
  }

  node(opType: string, inputs: Value[], attributes: proto.onnx.IAttributeProto[] = []): Value {
    const name = `${opType.toLowerCase()}_${this.#names.count++}`;
    this.#nodes.push(NodeProto.create({ opType, input: inputs, output: [name], attribute: attributes }));
    return name;
  }

  /** A float32 constant of rank 0. */
  scalar(value: number): Value {
    return this.constant(`float ${value}`, fromNumbers('float', [], [value]));
  }

  /** An int64 constant: rank 0 for a number, rank 1 for a list. */
  ints(value: number | readonly number[]): Value {
    const list = typeof value === 'number' ? [value] : value;
    const dims = typeof value === 'number' ? [] : [value.length];
    // Constant holds floats only before opset 9.
    if (this.opset < 9)
      return this.cast(this.constant(`float ${dims} ${list}`, fromNumbers('float', dims, list)), 'int64');
    const data = BigInt64Array.from(list, BigInt);
    return this.constant(`int64 ${dims} ${list}`, { type: 'int64', dims, data });
  }

  /** Constants of the same key are emitted once. */
  constant(key: string, tensor: Tensor): Value {
    const known = this.#constants.get(key);
    if (known !== undefined) return known;
    const attribute = AttributeProto.create({
      name: 'value',
      type: AttributeType.TENSOR,
      t: tensorProto(tensor),
    });
    const value = this.node('Constant', [], [attribute]);
    this.#constants.set(key, value);
    return value;
  }

  /** The value that the node gives for an attribute of the function: a scalar, a string tensor of shape [1]. Opset 12. */
  attribute(name: string, type: 'float' | 'int' | 'string'): Value {
    const known = this.#constants.get(`attribute ${name}`);
    if (known !== undefined) return known;
    const [target, attributeType] = {
      float: ['value_float', AttributeType.FLOAT] as const,
      int: ['value_int', AttributeType.INT] as const,
      string: ['value_string', AttributeType.STRING] as const,
    }[type];
    const reference = AttributeProto.create({ name: target, type: attributeType, refAttrName: name });
    const value = this.node('Constant', [], [reference]);
    this.#constants.set(`attribute ${name}`, value);
    return value;
  }

  /** Whether two float32 values are equal, never so for NaN. Opset 9, Equal takes floats from opset 11 on. */
  equal(a: Value, b: Value): Value {
    if (this.opset >= 11) return this.apply('Equal', a, b);
    const isNaN = (value: Value): Value => this.apply('IsNaN', value);
    if (a === b) return this.apply('Not', isNaN(a));
    const differs = this.apply('Or', this.apply('Less', a, b), this.apply('Less', b, a));
    return this.apply('Not', this.apply('Or', differs, this.apply('Or', isNaN(a), isNaN(b))));
  }

  /** 0, 1, ... as float32 [count] for an int64 count of shape [1]. Opset 9, Range exists from opset 11 on. */
  range(count: Value): Value {
    if (this.opset >= 11) {
      const end = this.cast(this.apply('Gather', count, this.ints(0)), 'float');
      return this.apply('Range', this.scalar(0), end, this.scalar(1));
    }
    const one = AttributeProto.create({
      name: 'value',
      type: AttributeType.TENSOR,
      t: tensorProto(fromNumbers('float', [1], [1])),
    });
    const places = this.apply('NonZero', this.node('ConstantOfShape', [count], [one]));
    return this.cast(this.apply('Reshape', places, this.ints([-1])), 'float');
  }

  cast(value: Value, to: 'float' | 'float16' | 'bfloat16' | 'int64'): Value {
    const types = {
      float: DataType.FLOAT,
      float16: DataType.FLOAT16,
      bfloat16: DataType.BFLOAT16,
      int64: DataType.INT64,
    };
    return this.node('Cast', [value], [intAttribute('to', types[to])]);
  }

  concat(axis: number, ...values: Value[]): Value {
    return this.node('Concat', values, [intAttribute('axis', axis)]);
  }

  transpose(value: Value, perm: number[]): Value {
    return this.node('Transpose', [value], [intsAttribute('perm', perm)]);
  }

  /** Two more axes of size 1 at the end, whatever the rank. */
  withTwoMoreAxes(value: Value): Value {
    if (this.opset >= 11) return this.unsqueeze(value, [-2, -1]);
    return this.apply('Reshape', value, this.concat(0, this.apply('Shape', value), this.ints([1, 1])));
  }

  unsqueeze(value: Value, axes: number[]): Value {
    return this.opset >= 13
      ? this.node('Unsqueeze', [value, this.ints(axes)])
      : this.node('Unsqueeze', [value], [intsAttribute('axes', axes)]);
  }

  /** Sum over the last axis of a tensor of rank 4, kept with size 1. */
  sumOfRows(value: Value): Value {
    return this.opset >= 13
      ? this.node('ReduceSum', [value, this.ints([3])])
      : this.node('ReduceSum', [value], [intsAttribute('axes', [3])]);
  }

  /** Sum of all elements, of rank 0. */
  sumOfAll(value: Value): Value {
    return this.node('ReduceSum', [value], [intAttribute('keepdims', 0)]);
  }

  /** Counts how often each word occurs in a string tensor of shape [1]: float32 [words.length]. */
  wordCounts(text: Value, words: readonly string[]): Value {
    return this.node(
      'TfIdfVectorizer',
      [text],
      [
        AttributeProto.create({ name: 'mode', type: AttributeType.STRING, s: utf8('TF') }),
        intAttribute('min_gram_length', 1),
        intAttribute('max_gram_length', 1),
        intAttribute('max_skip_count', 0),
        intsAttribute('ngram_counts', [0]),
        intsAttribute(
          'ngram_indexes',
          words.map((_, index) => index),
        ),
        AttributeProto.create({
          name: 'pool_strings',
          type: AttributeType.STRINGS,
          strings: words.map(utf8),
        }),
      ],
    );
  }

  /** Evaluates one of two branches; both read the values of this builder. */
  choose(
    condition: Value,
    whenTrue: (branch: FunctionBuilder) => Value,
    whenFalse: (branch: FunctionBuilder) => Value,
  ): Value {
    return this.node(
      'If',
      [condition],
      [this.#branch('then_branch', whenTrue), this.#branch('else_branch', whenFalse)],
    );
  }

  #branch(name: string, build: (branch: FunctionBuilder) => Value): proto.onnx.AttributeProto {
    const branch = new FunctionBuilder(this.opset, this.#names);
    const output = build(branch);
    const g = GraphProto.create({
      name,
      node: branch.#nodes,
      output: [ValueInfoProto.create({ name: output })],
    });
    return AttributeProto.create({ name, type: AttributeType.GRAPH, g });
  }
}

/** Inputs of the node and whatever its subgraphs read. */
function valuesRead(node: proto.onnx.INodeProto): string[] {
  const inner = (node.attribute ?? []).flatMap(({ g }) => (g?.node ?? []).flatMap(valuesRead));
  return [...(node.input ?? []), ...inner];
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

function intAttribute(name: string, value: number): proto.onnx.AttributeProto {
  return AttributeProto.create({ name, type: AttributeType.INT, i: value });
}

function intsAttribute(name: string, values: readonly number[]): proto.onnx.AttributeProto {
  return AttributeProto.create({ name, type: AttributeType.INTS, ints: [...values] });
}
