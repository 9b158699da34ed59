/** Small models around one SigmoidAttention node, with whatever graph inputs, types and attributes a test wants. */

import assert from 'node:assert/strict';
import proto from 'onnx-proto';
import * as ort from 'onnxruntime-node';
import { functionFor } from '../../op/function.js';
import { DOMAIN, INPUTS, type Attributes, type InputName } from '../../op/schema.js';

const { AttributeProto, FunctionProto, ModelProto } = proto.onnx;

/** Numbers of TensorProto.DataType. */
export const FLOAT = 1;
export const FLOAT16 = 10;

/** Symbolic dimensions by name; `null`: no name either. No shape at all: unknown rank. */
export type Dims = readonly (number | string | null)[] | undefined;

export interface Value {
  readonly type: number;
  readonly dims: Dims;
}

export interface NodeModel {
  readonly inputs: { readonly [name in InputName]?: Value };
  readonly outputs?: { readonly [name: string]: Value };
  readonly attributes?: Readonly<Record<string, number | string | Float>>;
  /** The call that the portable function is made for; without it the model has none. */
  readonly functionFor?: { readonly rank: 3 | 4; readonly attributes: Attributes };
  /** Another domain than the operator's: then the node is never the kernel's. */
  readonly domain?: string;
  readonly extra?: {
    readonly nodes: proto.onnx.INodeProto[];
    readonly initializers?: proto.onnx.ITensorProto[];
  };
  /** More graph inputs and outputs, for `extra` nodes. */
  readonly graphInputs?: { readonly [name: string]: Value };
  readonly graphOutputs?: { readonly [name: string]: Value };
  /** Inputs of the node that an initializer of `extra` gives. */
  readonly fromInitializers?: readonly InputName[];
}

/** A float attribute; a plain number is an int attribute. */
export class Float {
  constructor(readonly value: number) {}
}

export function encode(model: NodeModel): Uint8Array {
  const { inputs, domain = DOMAIN, extra, fromInitializers = [] } = model;
  const outputs = model.outputs ?? { Y: { type: inputs.Q?.type ?? FLOAT, dims: undefined } };
  const given = (name: InputName): boolean => inputs[name] !== undefined || fromInitializers.includes(name);
  const nodeInputs: string[] = INPUTS.map(({ name }) => (given(name) ? name : ''));
  while (nodeInputs.at(-1) === '') nodeInputs.pop();
  const functions =
    model.functionFor === undefined
      ? []
      : [
          FunctionProto.create({
            ...functionFor(
              [
                {
                  type: 'float',
                  rank: model.functionFor.rank,
                  attributes: model.functionFor.attributes,
                  inputs: INPUTS.filter(({ name, optional }) => optional && given(name)).map(
                    ({ name }) => name,
                  ),
                  presents: Object.keys(outputs).length > 1,
                },
              ],
              17,
            ),
            domain,
          }),
        ];
  const node = {
    name: 'attn',
    domain,
    opType: 'SigmoidAttention',
    input: nodeInputs,
    output: Object.keys(outputs),
    attribute: Object.entries(model.attributes ?? {}).map(([name, value]) => attribute(name, value)),
  };
  return ModelProto.encode({
    irVersion: 8,
    opsetImport: [
      { domain: '', version: 17 },
      { domain, version: 1 },
    ],
    functions,
    graph: {
      name: 'test',
      node: [...(extra?.nodes ?? []), node],
      initializer: extra?.initializers ?? [],
      input: [...valueInfos(inputs), ...valueInfos(model.graphInputs ?? {})],
      output: [...valueInfos(outputs), ...valueInfos(model.graphOutputs ?? {})],
    },
  }).finish();
}

function valueInfos(values: { readonly [name: string]: Value | undefined }): proto.onnx.IValueInfoProto[] {
  return Object.entries(values).map(([name, value]) => ({
    name,
    type: {
      tensorType: {
        elemType: value!.type,
        ...(value!.dims && { shape: { dim: value!.dims.map(dimension) } }),
      },
    },
  }));
}

function dimension(dim: number | string | null): proto.onnx.TensorShapeProto.IDimension {
  if (dim === null) return {};
  return typeof dim === 'string' ? { dimParam: dim } : { dimValue: dim };
}

function attribute(name: string, value: number | string | Float): proto.onnx.IAttributeProto {
  const { AttributeType } = proto.onnx.AttributeProto;
  if (value instanceof Float)
    return AttributeProto.create({ name, type: AttributeType.FLOAT, f: value.value });
  return typeof value === 'string'
    ? AttributeProto.create({ name, type: AttributeType.STRING, s: new TextEncoder().encode(value) })
    : AttributeProto.create({ name, type: AttributeType.INT, i: value });
}

/** Q, K and V of rank 4, batch and lengths symbolic. */
export function qkv(heads = 4, kvHeads = 2, headSize = 8, type = FLOAT): Record<'Q' | 'K' | 'V', Value> {
  return {
    Q: { type, dims: ['B', heads, 'N', headSize] },
    K: { type, dims: ['B', kvHeads, 'M', headSize] },
    V: { type, dims: ['B', kvHeads, 'M', headSize] },
  };
}

/** The same numbers at every call. */
export function numbers(count: number, seed = 1): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

export function floats(dims: readonly number[], seed = 1): ort.Tensor {
  return new ort.Tensor(
    'float32',
    numbers(
      dims.reduce((a, b) => a * b, 1),
      seed,
    ),
    dims,
  );
}

/** Feeds for models of {@link qkv}. */
export function feeds({ batch = 1, heads = 4, kvHeads = 2, queries = 3, keys = 5, size = 8 } = {}): Record<
  'Q' | 'K' | 'V',
  ort.Tensor
> {
  return {
    Q: floats([batch, heads, queries, size], 1),
    K: floats([batch, kvHeads, keys, size], 2),
    V: floats([batch, kvHeads, keys, size], 3),
  };
}

/** Every attribute of a rank-4 call without scale, as a function body needs them. */
export const DEFAULTS = {
  bias: new Float(0),
  bias_mode: 'none',
  is_causal: 0,
  left_window_size: -1,
  right_window_size: -1,
  softcap: new Float(0),
  normalize: 0,
} as const;

/** Equal dimensions, and float values within 1e-5 of each other. */
export function assertClose(found: ort.Tensor, expected: ort.Tensor): void {
  assert.deepEqual(found.dims, expected.dims);
  const [a, b] = [found.data as Float32Array, expected.data as Float32Array];
  a.forEach((value, i) => assert.ok(Math.abs(value - b[i]!) <= 1e-5, `element ${i}: ${value}, ${b[i]}`));
}

/** Quiet: the tests make ONNX Runtime log errors on purpose. */
export const QUIET = { logSeverityLevel: 4 } as const;

/** The error that a promise is rejected with; throws when it is not. */
export async function failure(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error('Expected a failure, but it succeeded.');
}
