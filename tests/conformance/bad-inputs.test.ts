/** Every violated constraint is reported in the words of the table: by the reference, and by the native library. */

import assert from 'node:assert/strict';

import * as ort from 'onnxruntime-node';

import { ArgumentError, type AttentionInputs } from '../../op/constraints.js';
import { register } from '../../op/node/index.js';
import { sigmoidAttention } from '../../op/reference.js';
import { BAD_CALLS, type BadCall } from './bad-inputs.js';
import { attentionModel } from './model.js';
import { feedsFor } from './ort-session.js';

describe('bad inputs: reference', () => {
  for (const { name, inputs, attributes, message } of BAD_CALLS)
    it(name, () => {
      assert.throws(() => sigmoidAttention(inputs, attributes), new ArgumentError(message));
    });

  it('names a required input that is missing', () => {
    const { inputs } = BAD_CALLS[0]!;
    const withoutV: AttentionInputs = { Q: inputs.Q!, K: inputs.K! };
    assert.throws(() => sigmoidAttention(withoutV), new ArgumentError('V is missing, must be given.'));
  });
});

describe('bad inputs: native library', () => {
  before(() => register());

  for (const call of BAD_CALLS) {
    it(`${call.name}: known at session creation`, async () => assertReported(call, 'static'));
    if (call.inputs.Q!.type !== 'int64' && call.inputs.Q!.type !== 'bool')
      it(`${call.name}: known at run`, async () => assertReported(call, 'open'));
  }
});

/** With static dimensions all but values are known when the session is created; with open ones not the shapes. */
async function assertReported(call: BadCall, dims: 'static' | 'open'): Promise<void> {
  const { phase, message } = await firstError(call, dims);
  if (call.runtimeMaySpeakFirst === true && !message.includes(call.message)) {
    assert.match(message, /type/i);
    return;
  }
  assert.ok(message.includes(call.message), `"${message}" must hold "${call.message}"`);
  if (dims === 'static') assert.equal(phase, call.showsAtRun === true ? 'run' : 'creation');
}

interface Failure {
  phase: 'creation' | 'run' | 'none';
  message: string;
}

async function firstError({ inputs, attributes }: BadCall, dims: 'static' | 'open'): Promise<Failure> {
  const model = attentionModel({
    inputs,
    attributes,
    presents: false,
    withFunction: false,
    floatForBfloat16: true,
    openDimensions: dims === 'open',
  });
  let phase: Failure['phase'] = 'creation';
  try {
    const session = await ort.InferenceSession.create(model, { logSeverityLevel: 4 });
    phase = 'run';
    try {
      await session.run(feedsFor(ort, inputs));
    } finally {
      await session.release();
    }
  } catch (error) {
    return { phase, message: (error as Error).message };
  }
  return { phase: 'none', message: '' };
}
