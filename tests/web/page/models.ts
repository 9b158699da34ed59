/** Small models that the session tests build: transformer-like layers of random weights around SigmoidAttention nodes. */

import proto from 'onnx-proto';
import { functionFor, type FunctionUse, nodeAttributes } from '../../../op/function.js';
import { type Attributes, DOMAIN, OP_TYPE } from '../../../op/schema.js';

const {
  GraphProto,
  ModelProto,
  NodeProto,
  OperatorSetIdProto,
  TensorProto,
  TypeProto,
  ValueInfoProto,
  StringStringEntryProto,
} = proto.onnx;

export interface LayeredModel {
  readonly layers: number;
  readonly heads: number;
  readonly headSize: number;
  /** A bool mask [1,1,N,N] as graph input, used by every layer. */
  readonly masked?: boolean;
  /** present_key and present_value of every layer are graph outputs. */
  readonly presents?: boolean;
  /** The outputs present_key and present_value of every second layer are left unnamed. */
  readonly unnamed?: boolean;
  /** Weights are in external data of this location instead of in the model. */
  readonly external?: string;
  /** The input is `ids` [B,N], rows of a table of 32, instead of `x`. */
  readonly embedded?: boolean;
  /** The shape of x, computed once, is used by every layer. */
  readonly reshaped?: boolean;
  /** An int64 input `offset` [1]: each layer adds row offset + 1 of x to all rows. */
  readonly shifted?: boolean;
}

export interface BuiltModel {
  readonly bytes: Uint8Array;
  /** The external data, empty without it. */
  readonly data: Uint8Array;
}

const ATTRIBUTES: Attributes = { bias: -2, bias_mode: 'none', is_causal: true };
const OPSET = 17;
const FLOAT = 1;
const INT64 = 7;
const BOOL = 9;

/** Of the table of an embedded model. */
export const TABLE_ROWS = 32;

/** x [B,N,W] -> per layer: q, k, v = x Wq, x Wk, x Wv; x = x + attention Wo. The last x is `y`. */
export function layeredModel({
  layers,
  heads,
  headSize,
  masked,
  presents,
  unnamed,
  external,
  embedded,
  reshaped,
  shifted,
}: LayeredModel): BuiltModel {
  const width = heads * headSize;
  const random = generator(7);
  const weights: proto.onnx.TensorProto[] = [];
  const blobs: Uint8Array[] = [];
  const weight = (name: string, rows = width): string => {
    const data = Float32Array.from({ length: rows * width }, () => (2 * random() - 1) / Math.sqrt(width));
    const rawData = new Uint8Array(data.buffer);
    const offset = blobs.reduce((sum, blob) => sum + blob.length, 0);
    blobs.push(rawData);
    const place = external === undefined ? { rawData } : externalPlace(external, offset, rawData.length);
    weights.push(TensorProto.create({ name, dims: [rows, width], dataType: FLOAT, ...place }));
    return name;
  };
  const attributes = { ...ATTRIBUTES, q_num_heads: heads, kv_num_heads: heads };
  const use: FunctionUse = {
    type: 'float',
    rank: 3,
    attributes,
    inputs: masked ? ['attn_mask'] : [],
    presents: presents === true,
    ...(masked ? { maskType: 'bool' as const } : {}),
  };
  const nodes: proto.onnx.NodeProto[] = [];
  const node = (opType: string, input: string[], output: string[], more: object = {}): void => {
    nodes.push(NodeProto.create({ name: output[0]!, opType, input, output, ...more }));
  };
  const presentNames: string[] = [];
  const ints = (name: string, ...values: number[]): string => {
    const rawData = new Uint8Array(BigInt64Array.from(values.map(BigInt)).buffer);
    weights.push(TensorProto.create({ name, dims: [values.length], dataType: INT64, rawData }));
    return name;
  };
  let x = 'x';
  if (embedded) node('Gather', [weight('table', TABLE_ROWS), 'ids'], ['x']);
  if (reshaped) node('Shape', ['x'], ['shape_of_x']);
  if (shifted) {
    node('Add', ['offset', ints('one', 1)], ['from']);
    node('Add', ['from', 'one'], ['to']);
    ints('length_axis', 1);
  }
  for (let layer = 0; layer < layers; layer++) {
    const name = (what: string): string => `layer${layer}_${what}`;
    for (const part of ['q', 'k', 'v']) node('MatMul', [x, weight(name(`w${part}`))], [name(part)]);
    const outputs = [name('attended')];
    if (unnamed && layer % 2 === 1) outputs.push('', '');
    else if (presents) {
      outputs.push(name('present_key'), name('present_value'));
      presentNames.push(...outputs.slice(1));
    }
    const inputs = [name('q'), name('k'), name('v'), ...(masked ? ['mask'] : [])];
    node(OP_TYPE, inputs, outputs, { domain: DOMAIN, attribute: nodeAttributes(attributes) });
    if (reshaped) node('Reshape', [name('attended'), 'shape_of_x'], [name('reshaped')]);
    const attended = name(reshaped ? 'reshaped' : 'attended');
    node('MatMul', [attended, weight(name('wo'))], [name('projected')]);
    if (shifted) {
      node('Slice', [x, 'from', 'to', 'length_axis'], [name('row')]);
      node('Add', [x, name('row')], [name('shifted')]);
      x = name('shifted');
    }
    const next = layer === layers - 1 ? 'y' : name('x');
    node('Add', [x, name('projected')], [next]);
    x = next;
  }
  const dims = (...names: (string | number)[]): proto.onnx.TensorShapeProto.IDimension[] =>
    names.map((dim) => (typeof dim === 'number' ? { dimValue: dim } : { dimParam: dim }));
  const info = (
    name: string,
    elemType: number,
    shape: proto.onnx.TensorShapeProto.IDimension[],
  ): proto.onnx.ValueInfoProto =>
    ValueInfoProto.create({
      name,
      type: TypeProto.create({ tensorType: { elemType, shape: { dim: shape } } }),
    });
  const model = ModelProto.create({
    irVersion: 8,
    producerName: 'tests',
    opsetImport: [
      OperatorSetIdProto.create({ domain: '', version: OPSET }),
      OperatorSetIdProto.create({ domain: DOMAIN, version: 1 }),
    ],
    functions: [functionFor([use], OPSET)],
    graph: GraphProto.create({
      name: 'layers',
      node: nodes,
      initializer: weights,
      input: [
        embedded
          ? info('ids', INT64, dims('batch', 'sequence'))
          : info('x', FLOAT, dims('batch', 'sequence', width)),
        ...(shifted ? [info('offset', INT64, dims(1))] : []),
        ...(masked ? [info('mask', BOOL, dims(1, 1, 'sequence', 'sequence'))] : []),
      ],
      output: [
        info('y', FLOAT, dims('batch', 'sequence', width)),
        ...presentNames.map((name) => info(name, FLOAT, dims('batch', heads, 'sequence', headSize))),
      ],
    }),
  });
  return {
    bytes: ModelProto.encode(model).finish(),
    data: external === undefined ? new Uint8Array() : concatenate(blobs),
  };
}

function externalPlace(location: string, offset: number, length: number): object {
  const entry = (key: string, value: string | number): proto.onnx.StringStringEntryProto =>
    StringStringEntryProto.create({ key, value: String(value) });
  return {
    dataLocation: TensorProto.DataLocation.EXTERNAL,
    externalData: [entry('location', location), entry('offset', offset), entry('length', length)],
  };
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Numbers in [0, 1) from a seed (mulberry32). */
export function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
