/**
 * The reference against ONNX Runtime's own Attention: with normalize and a very negative bias the operator is softmax
 * attention, so every mirrored ONNX case must agree with the standard operator's CPU kernel.
 */

import * as ort from 'onnxruntime-node';
import proto from 'onnx-proto';

import { sigmoidAttention } from '../../op/reference.js';
import { nodeAttributes } from '../../op/function.js';
import { INPUTS } from '../../op/schema.js';
import { onnxDataType } from '../../op/tensor-proto.js';
import { toNumbers } from '../../op/tensor.js';
import type { Case } from './case.js';
import { inputsOf } from './case-inputs.js';
import { ONNX_CASES } from './onnx-cases.js';
import { runModelOn } from './ort-session.js';

const { GraphProto, ModelProto, NodeProto } = proto.onnx;

/** What the numbers of both sides differ by: float32 sums on one side; half a unit in the last place in float16. */
const TOLERANCE = { float: 2e-6, float16: 4e-3, bfloat16: 4e-2 };

describe('reference: softmax limit against Attention of ONNX Runtime', () => {
  for (const testCase of ONNX_CASES) {
    const reason = reasonToSkip(testCase);
    if (reason !== undefined) {
      it.skip(`${testCase.name} (${reason})`);
      continue;
    }
    it(testCase.name, async () => {
      const inputs = inputsOf(testCase);
      const outputs = await runModelOn(ort, attentionModel(testCase), testCase.type, inputs, ['Y']);
      const found = toNumbers(outputs['Y']!);
      const wanted = sigmoidAttention(inputs, { ...testCase.attributes, normalize: true, bias: -500 }).Y.data;
      wanted.forEach((value, index) => {
        if (!(Math.abs(value - found[index]!) <= TOLERANCE[testCase.type]))
          throw new Error(`Y at ${index} is ${value} here and ${found[index]} in ONNX Runtime.`);
      });
    });
  }
});

function reasonToSkip({ attributes }: Case): string | undefined {
  const { left_window_size = -1, right_window_size = -1 } = attributes;
  return left_window_size >= 0 || right_window_size >= 0
    ? 'ONNX Runtime has no window in Attention'
    : undefined;
}

/** A model of one standard Attention node: opset 23, or 24 for nonpad_kv_seqlen. */
function attentionModel(testCase: Case): Uint8Array {
  const inputs = inputsOf(testCase);
  const given = INPUTS.filter(({ name }) => inputs[name] !== undefined).map(({ name }) => name);
  const opset = inputs.nonpad_kv_seqlen === undefined ? 23 : 24;
  const shared = ['scale', 'is_causal', 'softcap', 'q_num_heads', 'kv_num_heads'];
  const node = NodeProto.create({
    opType: 'Attention',
    input: INPUTS.slice(0, opset === 23 ? 6 : 7).map(({ name }) => (inputs[name] === undefined ? '' : name)),
    output: testCase.presents ? ['Y', 'present_key', 'present_value'] : ['Y'],
    attribute: nodeAttributes(testCase.attributes).filter(({ name }) => shared.includes(name)),
  });
  const model = ModelProto.create({
    irVersion: 10,
    opsetImport: [{ domain: '', version: opset }],
    graph: GraphProto.create({
      name: 'attention',
      node: [node],
      input: given.map((name) => valueInfo(name, onnxDataType(inputs[name]!.type), inputs[name]!.dims)),
      output: [valueInfo('Y', onnxDataType(testCase.type))],
    }),
  });
  return ModelProto.encode(model).finish();
}

function valueInfo(name: string, elemType: number, dims?: readonly number[]): proto.onnx.IValueInfoProto {
  const shape = dims && { dim: dims.map((dimValue) => ({ dimValue })) };
  return { name, type: { tensorType: { elemType, ...(shape && { shape }) } } };
}
