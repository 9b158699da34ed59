/**
 * Walks the conformance table through stock onnxruntime-node on the CUDA provider. A program, not a mocha file: it runs on a
 * machine with a GPU, where the CUDA provider's libraries lie beside onnxruntime-node.
 *
 *   tsx tests/cuda/session-conformance.ts [name prefix]
 *
 * Falling back to the CPU provider is forbidden, so a case passes only if the CUDA kernel answered. Ends with one line that
 * counts; exit code 1 when a case fails.
 */
import * as ort from 'onnxruntime-node';

import { register } from '../../op/node/index.js';
import { OUTPUTS } from '../../op/schema.js';
import { CASES } from '../conformance/cases.js';
import type { DeviceOutputs } from '../conformance/judge.js';
import { attentionModel } from '../conformance/model.js';
import { feedsFor, readBack } from '../conformance/ort-session.js';
import { type Device, runCase } from '../conformance/runner.js';

const OPTIONS: ort.InferenceSession.SessionOptions = {
  executionProviders: ['cuda'],
  logSeverityLevel: 3,
  extra: { session: { disable_cpu_ep_fallback: '1' } },
};

const cuda: Device = {
  name: 'CUDA sessions',
  supports: () => true,
  run: async ({ attributes, presents, type }, inputs) => {
    const model = attentionModel({
      inputs,
      attributes,
      presents,
      withFunction: false,
      floatForBfloat16: true,
    });
    const session = await ort.InferenceSession.create(model, OPTIONS);
    try {
      const results = await session.run(feedsFor(ort, inputs));
      const names = OUTPUTS.filter(({ optional }) => presents || !optional).map(({ name }) => name);
      const outputs = names.map((name) => [name, readBack(results[name]!, type)]);
      return Object.fromEntries(outputs) as unknown as DeviceOutputs;
    } finally {
      await session.release();
    }
  },
};

register();
const prefix = process.argv[2] ?? '';
let passed = 0;
let failed = 0;
for (const testCase of CASES.filter(({ name }) => name.startsWith(prefix))) {
  const mistakes = await runCase(cuda, testCase).catch((error: unknown) => [String(error)]);
  if (mistakes.length === 0) passed++;
  else {
    failed++;
    console.log(`${testCase.name}: ${mistakes[0]!.slice(0, 300)}`);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
