/** Builds small ONNX models for tests and benchmarks, node by node. */
import proto from 'onnx-proto';

import { numberToBfloat16, numberToFloat16 } from '../op/half.js';

const { onnx } = proto;

export type Dim = number | string;
export type AttributeValue =
  | number
  | string
  | readonly number[]
  | { readonly float: number }
  | { readonly graph: proto.onnx.IGraphProto }
  | { readonly tensor: proto.onnx.ITensorProto };

export const FLOAT = 1;
export const INT32 = 6;
export const INT64 = 7;
export const BOOL = 9;
export const FLOAT16 = 10;
export const BFLOAT16 = 16;

export class ModelBuilder {
  readonly nodes: proto.onnx.INodeProto[] = [];
  readonly initializers: proto.onnx.ITensorProto[] = [];
  readonly inputs: proto.onnx.IValueInfoProto[] = [];
  readonly outputs: proto.onnx.IValueInfoProto[] = [];
  private count = 0;

  constructor(readonly opset: number) {}

  input(name: string, type: number, dims: readonly Dim[]): string {
    this.inputs.push(valueInfo(name, type, dims));
    return name;
  }

  output(name: string, type: number = FLOAT, dims?: readonly Dim[]): void {
    this.outputs.push(valueInfo(name, type, dims));
  }

  /** An initializer. */
  constant(
    type: number,
    dims: readonly number[],
    values: ArrayLike<number>,
    name = `c${this.count++}`,
  ): string {
    this.initializers.push(tensor(name, type, dims, values));
    return name;
  }

  ints(values: readonly number[]): string {
    return this.constant(INT64, [values.length], values);
  }

  scalar(type: number, value: number): string {
    return this.constant(type, [], [value]);
  }

  op(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    output = `v${this.count++}`,
    domain = '',
  ): string {
    this.node(opType, inputs, [output], attributes, domain);
    return output;
  }

  node(
    opType: string,
    inputs: readonly string[],
    outputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    domain = '',
  ): void {
    this.nodes.push({
      name: `${opType}_${this.count++}`,
      opType,
      domain,
      input: [...inputs],
      output: [...outputs],
      attribute: Object.entries(attributes).map(([name, value]) => attributeProto(name, value)),
    });
  }

  unsqueeze(name: string, axes: readonly number[]): string {
    return this.opset >= 13
      ? this.op('Unsqueeze', [name, this.ints(axes)])
      : this.op('Unsqueeze', [name], { axes });
  }

  squeeze(name: string, axes: readonly number[]): string {
    return this.opset >= 13
      ? this.op('Squeeze', [name, this.ints(axes)])
      : this.op('Squeeze', [name], { axes });
  }

  split(name: string, axis: number, sizes: readonly number[]): string[] {
    const outputs = sizes.map(() => `v${this.count++}`);
    if (this.opset >= 13) this.node('Split', [name, this.ints(sizes)], outputs, { axis });
    else this.node('Split', [name], outputs, { axis, split: sizes });
    return outputs;
  }

  reduce(opType: string, name: string, axis: number, keepdims = 1): string {
    const byInput = opType === 'ReduceSum' ? this.opset >= 13 : this.opset >= 18;
    return byInput
      ? this.op(opType, [name, this.ints([axis])], { keepdims })
      : this.op(opType, [name], { axes: [axis], keepdims });
  }

  /** Size of one axis as int64 [1]. */
  size(name: string, axis: number): string {
    return this.op('Gather', [this.op('Shape', [name]), this.ints([axis])], { axis: 0 });
  }

  graph(name = 'graph'): proto.onnx.IGraphProto {
    return {
      name,
      node: this.nodes,
      initializer: this.initializers,
      input: this.inputs,
      output: this.outputs,
    };
  }

  model(extra: proto.onnx.IModelProto = {}): proto.onnx.ModelProto {
    return onnx.ModelProto.create({
      irVersion: this.opset >= 21 ? 10 : 8,
      producerName: 'model-builder',
      opsetImport: [
        { domain: '', version: this.opset },
        { domain: 'com.microsoft', version: 1 },
      ],
      graph: this.graph(),
      ...extra,
    });
  }

  toBytes(extra: proto.onnx.IModelProto = {}): Uint8Array {
    return onnx.ModelProto.encode(this.model(extra)).finish();
  }
}

function valueInfo(name: string, type: number, dims?: readonly Dim[]): proto.onnx.IValueInfoProto {
  const dim = dims?.map((entry) => (typeof entry === 'number' ? { dimValue: entry } : { dimParam: entry }));
  return { name, type: { tensorType: { elemType: type, ...(dim === undefined ? {} : { shape: { dim } }) } } };
}

function attributeProto(name: string, value: AttributeValue): proto.onnx.IAttributeProto {
  const { AttributeType } = onnx.AttributeProto;
  if (typeof value === 'number') return { name, type: AttributeType.INT, i: value };
  if (typeof value === 'string')
    return { name, type: AttributeType.STRING, s: new TextEncoder().encode(value) };
  if ('float' in value) return { name, type: AttributeType.FLOAT, f: value.float };
  if ('graph' in value) return { name, type: AttributeType.GRAPH, g: value.graph };
  if ('tensor' in value) return { name, type: AttributeType.TENSOR, t: value.tensor };
  return { name, type: AttributeType.INTS, ints: [...value] };
}

export function tensor(
  name: string,
  dataType: number,
  dims: readonly number[],
  values: ArrayLike<number>,
): proto.onnx.ITensorProto {
  return { name, dataType, dims: [...dims], rawData: rawBytes(dataType, values) };
}

function rawBytes(type: number, values: ArrayLike<number>): Uint8Array {
  switch (type) {
    case FLOAT:
      return new Uint8Array(Float32Array.from(values).buffer);
    case INT64:
      return new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    case INT32:
      return new Uint8Array(Int32Array.from(values).buffer);
    case BOOL:
      return Uint8Array.from(values);
    case FLOAT16:
      return new Uint8Array(Uint16Array.from(values, numberToFloat16).buffer);
    case BFLOAT16:
      return new Uint8Array(Uint16Array.from(values, numberToBfloat16).buffer);
    default:
      throw new Error(`no raw bytes for data type ${type}`);
  }
}
