/** Runs one-node models of cases on onnxruntime-node, as it comes or with the package's operator registered. */

import * as ort from 'onnxruntime-node';

import type { AttentionInputs } from '../../op/constraints.js';
import { OUTPUTS } from '../../op/schema.js';
import { type ElementType, fromNumbers, type Tensor, toNumbers } from '../../op/tensor.js';
import type { Case } from './case.js';
import type { DeviceOutputs } from './judge.js';
import { attentionModel, type ModelForm } from './model.js';

/** onnxruntime-node has no bfloat16 tensors: the model casts around the operator, which loses nothing. */
export async function runOnOrtNode(
  testCase: Case,
  inputs: AttentionInputs,
  form: Pick<ModelForm, 'withFunction' | 'opset' | 'domain'>,
): Promise<DeviceOutputs> {
  const { attributes, presents, type } = testCase;
  const model = attentionModel({ inputs, attributes, presents, floatForBfloat16: true, ...form });
  const names = OUTPUTS.filter(({ optional }) => presents || !optional).map(({ name }) => name);
  return (await runModelOnOrtNode(model, type, inputs, names)) as unknown as DeviceOutputs;
}

/** Outputs are read back as tensors of the given type. */
export async function runModelOnOrtNode(
  model: Uint8Array,
  type: ElementType,
  inputs: AttentionInputs,
  outputs: readonly string[],
): Promise<Record<string, Tensor>> {
  return withSession(model, async (session) => {
    const results = await session.run(ortFeeds(inputs));
    return Object.fromEntries(outputs.map((name) => [name, fromOrt(results[name]!, type)]));
  });
}

/** Releases the session however `use` ends. */
export async function withSession<Result>(
  model: Uint8Array,
  use: (session: ort.InferenceSession) => Promise<Result>,
): Promise<Result> {
  const session = await ort.InferenceSession.create(model, { logSeverityLevel: 3, intraOpNumThreads: 1 });
  try {
    return await use(session);
  } finally {
    await session.release();
  }
}

export function ortFeeds(inputs: AttentionInputs): Record<string, ort.Tensor> {
  return Object.fromEntries(Object.entries(inputs).map(([name, tensor]) => [name, toOrt(tensor)]));
}

function toOrt(tensor: Tensor): ort.Tensor {
  switch (tensor.type) {
    case 'bfloat16':
      return new ort.Tensor('float32', Float32Array.from(toNumbers(tensor)), tensor.dims);
    case 'float':
      return new ort.Tensor('float32', tensor.data, tensor.dims);
    default:
      return new ort.Tensor(tensor.type, tensor.data, tensor.dims);
  }
}

export function fromOrt(tensor: ort.Tensor, type: ElementType): Tensor {
  if (type === 'float16') return { type, dims: tensor.dims, data: tensor.data as Uint16Array };
  return fromNumbers(type, tensor.dims, tensor.data as Float32Array);
}
