/**
 * A one-node ONNX model of a conformance case, with or without the portable function. Input and output names are those of
 * the operator.
 */

import proto from 'onnx-proto';

import type { AttentionInputs } from '../../op/constraints.js';
import { functionFor, type FunctionUse, nodeAttributes } from '../../op/function.js';
import {
  type Attributes,
  DOMAIN,
  INPUTS,
  type InputName,
  OP_TYPE,
  OUTPUTS,
  SINCE_VERSION,
} from '../../op/schema.js';
import { onnxDataType } from '../../op/tensor-proto.js';
import type { TensorType } from '../../op/tensor.js';

const {
  FunctionProto,
  GraphProto,
  ModelProto,
  NodeProto,
  OperatorSetIdProto,
  TypeProto,
  ValueInfoProto,
  AttributeProto,
} = proto.onnx;

export interface ModelForm {
  readonly inputs: AttentionInputs;
  readonly attributes: Attributes;
  readonly presents: boolean;
  /** Version of the default operator set; 17 when left out. */
  readonly opset?: number;
  /** Whether the portable function is put in. */
  readonly withFunction: boolean;
  /** Another domain than the operator's for node and function: then no registered kernel takes the function's place. */
  readonly domain?: string;
  /**
   * For runtimes whose interface has no bfloat16 tensors: graph inputs and outputs are float, and Cast nodes stand around
   * the operator. Nothing is lost where the values are bfloat16 already.
   */
  readonly floatForBfloat16: boolean;
  /** Whether the dimensions of the graph's inputs are left open, so that they are known only when the model runs. */
  readonly openDimensions?: boolean;
}

export type OutputName = (typeof OUTPUTS)[number]['name'];

/** The encoded model. Dimensions of the graph's inputs are written out, those of its outputs left open. */
export function attentionModel(form: ModelForm): Uint8Array {
  const { inputs, attributes, presents, opset = 17, domain = DOMAIN } = form;
  const outputs = OUTPUTS.filter(({ optional }) => presents || !optional).map(({ name }) => name);
  const given = INPUTS.filter(({ name }) => inputs[name] !== undefined).map(({ name }) => name);
  const boundary = (type: TensorType): TensorType =>
    form.floatForBfloat16 && type === 'bfloat16' ? 'float' : type;
  const isCast = (type: TensorType): boolean => boundary(type) !== type;
  const inner = (name: string, type: TensorType): string => (isCast(type) ? `${name}_bfloat16` : name);
  const elementType = inputs.Q!.type;
  const inputNames = INPUTS.map(({ name }) => {
    const tensor = inputs[name];
    return tensor === undefined ? '' : inner(name, tensor.type);
  });
  while (inputNames.at(-1) === '') inputNames.pop();

  const node = [
    ...given
      .filter((name) => isCast(inputs[name]!.type))
      .map((name) => cast(name, inner(name, 'bfloat16'), 'bfloat16')),
    NodeProto.create({
      name: 'attention',
      domain,
      opType: OP_TYPE,
      input: inputNames,
      output: outputs.map((name) => inner(name, elementType)),
      attribute: nodeAttributes(attributes),
    }),
    ...(isCast(elementType) ? outputs.map((name) => cast(inner(name, elementType), name, 'float')) : []),
  ];
  const model = ModelProto.create({
    irVersion: 8,
    producerName: 'ort-sigmoid-attention conformance',
    opsetImport: [
      OperatorSetIdProto.create({ domain: '', version: opset }),
      OperatorSetIdProto.create({ domain, version: SINCE_VERSION }),
    ],
    functions: form.withFunction
      ? [FunctionProto.create({ ...functionFor([functionUse(form)], opset), domain })]
      : [],
    graph: GraphProto.create({
      name: 'case',
      node,
      input: given.map((name) =>
        valueInfo(
          name,
          boundary(inputs[name]!.type),
          form.openDimensions === true ? undefined : inputs[name]!.dims,
        ),
      ),
      output: outputs.map((name) => valueInfo(name, boundary(elementType))),
    }),
  });
  return ModelProto.encode(model).finish();
}

/** How the node of a case calls the portable function. */
export function functionUse({
  inputs,
  attributes,
  presents,
}: Pick<ModelForm, 'inputs' | 'attributes' | 'presents'>): FunctionUse {
  const use: FunctionUse = {
    type: inputs.Q!.type as FunctionUse['type'],
    rank: inputs.Q!.dims.length as 3 | 4,
    attributes,
    inputs: INPUTS.filter(({ name, optional }) => optional && inputs[name] !== undefined).map(
      ({ name }): InputName => name,
    ),
    presents,
  };
  const mask = inputs.attn_mask;
  return mask === undefined ? use : { ...use, maskType: mask.type as NonNullable<FunctionUse['maskType']> };
}

function cast(input: string, output: string, to: TensorType): proto.onnx.NodeProto {
  const attribute = AttributeProto.create({
    name: 'to',
    type: proto.onnx.AttributeProto.AttributeType.INT,
    i: onnxDataType(to),
  });
  return NodeProto.create({
    name: `cast_${output}`,
    opType: 'Cast',
    input: [input],
    output: [output],
    attribute: [attribute],
  });
}

function valueInfo(name: string, type: TensorType, dims?: readonly number[]): proto.onnx.ValueInfoProto {
  const shape = dims && { dim: dims.map((dimValue) => ({ dimValue })) };
  return ValueInfoProto.create({
    name,
    type: TypeProto.create({ tensorType: { elemType: onnxDataType(type), ...(shape && { shape }) } }),
  });
}
