/**
 * Runs models of cases on the JavaScript interface of ONNX Runtime, which onnxruntime-node and onnxruntime-web share.
 * Neither has bfloat16 tensors: models are made to cast around the operator, which loses nothing.
 */

import type * as common from 'onnxruntime-common';

import type { AttentionInputs } from '../../op/constraints.js';
import { OUTPUTS } from '../../op/schema.js';
import { type ElementType, fromNumbers, type Tensor, toNumbers } from '../../op/tensor.js';
import type { Case } from './case.js';
import type { DeviceOutputs } from './judge.js';
import { attentionModel, type ModelForm } from './model.js';

/** The module object of onnxruntime-node or onnxruntime-web. */
export type Runtime = Pick<typeof common, 'InferenceSession' | 'Tensor'>;

export async function runCaseOn(
  runtime: Runtime,
  testCase: Case,
  inputs: AttentionInputs,
  form: Pick<ModelForm, 'withFunction' | 'opset' | 'domain'>,
): Promise<DeviceOutputs> {
  const { attributes, presents, type } = testCase;
  const model = attentionModel({ inputs, attributes, presents, floatForBfloat16: true, ...form });
  const names = OUTPUTS.filter(({ optional }) => presents || !optional).map(({ name }) => name);
  return (await runModelOn(runtime, model, type, inputs, names)) as unknown as DeviceOutputs;
}

/** Outputs are read back as tensors of the given type. */
export async function runModelOn(
  runtime: Runtime,
  model: Uint8Array,
  type: ElementType,
  inputs: AttentionInputs,
  outputs: readonly string[],
): Promise<Record<string, Tensor>> {
  return withSession(runtime, model, async (session) => {
    const results = await session.run(feedsFor(runtime, inputs));
    return Object.fromEntries(outputs.map((name) => [name, readBack(results[name]!, type)]));
  });
}

/** Releases the session however `use` ends. */
export async function withSession<Result>(
  runtime: Runtime,
  model: Uint8Array,
  use: (session: common.InferenceSession) => Promise<Result>,
): Promise<Result> {
  const options = { logSeverityLevel: 4, intraOpNumThreads: 1 } as const;
  const session = await runtime.InferenceSession.create(model, options);
  try {
    return await use(session);
  } finally {
    await session.release();
  }
}

export function feedsFor(runtime: Runtime, inputs: AttentionInputs): Record<string, common.Tensor> {
  return Object.fromEntries(Object.entries(inputs).map(([name, tensor]) => [name, feed(runtime, tensor)]));
}

function feed({ Tensor: OrtTensor }: Runtime, tensor: Tensor): common.Tensor {
  switch (tensor.type) {
    case 'bfloat16':
      return new OrtTensor('float32', Float32Array.from(toNumbers(tensor)), tensor.dims);
    case 'float':
      return new OrtTensor('float32', tensor.data, tensor.dims);
    default:
      return new OrtTensor(tensor.type, tensor.data, tensor.dims);
  }
}

/** float16 outputs are read by their bits, whichever array the engine shows them as. */
export function readBack(tensor: common.Tensor, type: ElementType): Tensor {
  if (type !== 'float16') return fromNumbers(type, tensor.dims, tensor.data as Float32Array);
  const { buffer, byteOffset, byteLength } = tensor.data as Uint16Array;
  return { type, dims: tensor.dims, data: new Uint16Array(buffer, byteOffset, byteLength / 2) };
}
