/**
 * Collects what a rewrite adds to a graph: nodes at one place, constants, fresh names. Shapes that are not fixed are computed
 * by nodes of the model from tensors it already has.
 */
import proto from 'onnx-proto';
import type { Graph } from '../graph/graph.js';
import type { GraphNode } from '../graph/node.js';
import { concatenate, fieldHeader } from '../onnx/wire.js';
import { DataType } from '../onnx/tensor.js';

const { AttributeProto, NodeProto, TensorProto } = proto.onnx;
const AttributeType = AttributeProto.AttributeType;

export type AttributeInput = number | readonly number[] | string | { readonly float: number };

export interface NewNode {
  readonly name: string;
  readonly opType: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Encoded NodeProto. */
  readonly bytes: Uint8Array;
}

/** Names that are free in a model. */
export class Names {
  private readonly taken: Set<string>;
  /** Values made once and used by several sites. */
  readonly shared = new Map<string, string>();

  constructor(graphs: Iterable<Graph>) {
    this.taken = new Set();
    for (const graph of graphs) for (const name of graph.names()) this.taken.add(name);
  }

  fresh(wish: string): string {
    let name = wish;
    for (let count = 1; this.taken.has(name); count++) name = `${wish}_${count}`;
    this.taken.add(name);
    return name;
  }
}

export class Emitter {
  readonly nodes: NewNode[] = [];

  constructor(
    private readonly names: Names,
    private readonly constants: Constants,
    readonly prefix: string,
    readonly opset: number,
  ) {}

  /** Adds a node with one output and returns that output's name. */
  apply(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeInput>> = {},
    output?: string,
  ): string {
    const name = this.names.fresh(`${this.prefix}/${opType}`);
    const result = output ?? this.names.fresh(`${name}_output`);
    this.add({ name, opType, domain: '', inputs, outputs: [result], attributes });
    return result;
  }

  /** A value that several sites of a graph need: made by the first that asks. */
  once(key: string, make: () => string): string {
    const known = this.names.shared.get(key);
    if (known !== undefined) return known;
    const name = make();
    this.names.shared.set(key, name);
    return name;
  }

  split(input: string, axis: number, sizes: readonly number[], outputs: readonly string[]): void {
    const name = this.names.fresh(`${this.prefix}/Split`);
    const given = this.opset >= 13;
    this.add({
      name,
      opType: 'Split',
      domain: '',
      inputs: given ? [input, this.ints(sizes)] : [input],
      outputs,
      attributes: given ? { axis } : { axis, split: sizes },
    });
  }

  /** One of two numbers; before opset 9, which brings Where, both must be finite. */
  choose(condition: string, dataType: number, whenTrue: number, whenFalse: number): string {
    if (this.opset >= 9)
      return this.apply('Where', [
        condition,
        this.scalar(dataType, whenTrue),
        this.scalar(dataType, whenFalse),
      ]);
    const flag = this.apply('Cast', [condition], { to: dataType });
    const step = this.apply('Mul', [flag, this.scalar(dataType, whenTrue - whenFalse)]);
    return this.apply('Add', [step, this.scalar(dataType, whenFalse)]);
  }

  /** Numbers no smaller than a bound. */
  atLeast(input: string, dataType: number, bound: number): string {
    return this.opset >= 8
      ? this.apply('Max', [input, this.scalar(dataType, bound)])
      : this.apply('Clip', [input], { min: { float: bound } });
  }

  /** Positions `start` to before `end` of one axis. */
  slice(input: string, axis: number, start: number, end: number): string {
    return this.opset >= 10
      ? this.apply('Slice', [input, this.ints([start]), this.ints([end]), this.ints([axis])])
      : this.apply('Slice', [input], { starts: [start], ends: [end], axes: [axis] });
  }

  unsqueeze(input: string, axes: readonly number[]): string {
    return this.opset >= 13
      ? this.apply('Unsqueeze', [input, this.ints(axes)])
      : this.apply('Unsqueeze', [input], { axes });
  }

  add(node: {
    readonly name: string;
    readonly opType: string;
    readonly domain: string;
    readonly inputs: readonly string[];
    readonly outputs: readonly string[];
    readonly attributes: Readonly<Record<string, AttributeInput>>;
    readonly metadata?: Readonly<Record<string, string>>;
  }): void {
    const { name, opType, inputs, outputs } = node;
    this.nodes.push({ name, opType, inputs, outputs, bytes: encodeNode(node) });
  }

  /** A node of the model once more, between other values. */
  copy(node: GraphNode, inputs: readonly string[], outputs: readonly string[]): void {
    const message = NodeProto.decode(node.graph.window.view(node.span.start, node.span.end));
    const name = this.names.fresh(`${this.prefix}/${node.opType}`);
    const bytes = NodeProto.encode({ ...message, name, input: [...inputs], output: [...outputs] }).finish();
    this.nodes.push({ name, opType: node.opType, inputs, outputs, bytes });
  }

  fresh(suffix: string): string {
    return this.names.fresh(`${this.prefix}/${suffix}`);
  }

  ints(values: readonly number[]): string {
    return this.constants.get(DataType.int64, [values.length], values);
  }

  /** A scalar of the given element type. */
  scalar(dataType: number, value: number): string {
    return this.constants.get(dataType, [], [value]);
  }

  tensor(dataType: number, dims: readonly number[], values: readonly number[]): string {
    return this.constants.get(dataType, dims, values);
  }

  vector(values: readonly number[]): string {
    return this.constants.get(DataType.float, [values.length], values);
  }

  /** Sum, maximum and so on over an axis, kept with size 1. */
  reduce(opType: string, input: string, axis: number): string {
    return this.opset >= 18 || (opType === 'ReduceSum' && this.opset >= 13)
      ? this.apply(opType, [input, this.ints([axis])], { keepdims: 1 })
      : this.apply(opType, [input], { axes: [axis], keepdims: 1 });
  }
}

/** Constants that a rewrite adds, each once per model. */
export class Constants {
  private readonly byContent = new Map<string, string>();
  readonly encoded: { readonly name: string; readonly bytes: Uint8Array }[] = [];

  constructor(private readonly names: Names) {}

  get(dataType: number, dims: readonly number[], values: readonly number[]): string {
    const key = `${dataType}:${dims.join(',')}:${values.map((value) => (Object.is(value, -0) ? '-0' : String(value))).join(',')}`;
    const known = this.byContent.get(key);
    if (known !== undefined) return known;
    const name = this.names.fresh(`sigmoid_attention/constant_${this.encoded.length}`);
    this.byContent.set(key, name);
    this.encoded.push({ name, bytes: encodeTensor(name, dataType, dims, values) });
    return name;
  }
}

function encodeTensor(
  name: string,
  dataType: number,
  dims: readonly number[],
  values: readonly number[],
): Uint8Array {
  return TensorProto.encode(
    TensorProto.create({ name, dataType, dims: [...dims], rawData: rawBytes(dataType, values) }),
  ).finish();
}

function rawBytes(dataType: number, values: readonly number[]): Uint8Array {
  switch (dataType) {
    case DataType.float:
      return new Uint8Array(Float32Array.from(values).buffer);
    case DataType.int64:
      return new Uint8Array(BigInt64Array.from(values, (value) => BigInt(value)).buffer);
    case DataType.bool:
      return Uint8Array.from(values);
    case DataType.float16:
      return new Uint8Array(Uint16Array.from(values, toHalf).buffer);
    case DataType.bfloat16:
      return new Uint8Array(
        Uint16Array.from(values, (value) => new Uint32Array(Float32Array.of(value).buffer)[0]! >>> 16).buffer,
      );
    default:
      throw new Error(`constants of data type ${dataType} are not written`);
  }
}

/** Bits of the float16 nearest to a number of moderate size; larger ones become the largest finite float16. */
function toHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (size === Infinity) return sign | 0x7c00;
  if (Number.isNaN(value)) return 0x7e00;
  if (size >= 65504) return sign | 0x7bff;
  if (size < 2 ** -14) return sign | Math.round(size * 2 ** 24);
  const exponent = Math.floor(Math.log2(size));
  const fraction = Math.round((size / 2 ** exponent - 1) * 1024);
  return sign | (((exponent + 15) << 10) + fraction);
}

function encodeAttribute(name: string, value: AttributeInput): proto.onnx.AttributeProto {
  if (typeof value === 'number') return AttributeProto.create({ name, type: AttributeType.INT, i: value });
  if (typeof value === 'string')
    return AttributeProto.create({ name, type: AttributeType.STRING, s: new TextEncoder().encode(value) });
  if ('float' in value) return AttributeProto.create({ name, type: AttributeType.FLOAT, f: value.float });
  return AttributeProto.create({ name, type: AttributeType.INTS, ints: [...value] });
}

/** Field number of NodeProto.metadata_props, which the message library does not know. */
const NODE_METADATA = 9;

function encodeNode(node: Parameters<Emitter['add']>[0]): Uint8Array {
  const { name, opType, domain, inputs, outputs, attributes, metadata = {} } = node;
  const known = NodeProto.encode(
    NodeProto.create({
      name,
      opType,
      domain,
      input: [...inputs],
      output: [...outputs],
      attribute: Object.entries(attributes).map(([key, value]) => encodeAttribute(key, value)),
    }),
  ).finish();
  const entries = Object.entries(metadata).map(([key, value]) => {
    const pair = encodePair(key, value);
    return concatenate([fieldHeader(NODE_METADATA, pair.length), pair]);
  });
  return concatenate([known, ...entries]);
}

/** A StringStringEntryProto. */
export function encodePair(key: string, value: string): Uint8Array {
  const { StringStringEntryProto } = proto.onnx;
  return StringStringEntryProto.encode(StringStringEntryProto.create({ key, value })).finish();
}
