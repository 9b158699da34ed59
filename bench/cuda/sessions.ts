/**
 * Whole models in ONNX Runtime on a GPU: a 12-layer float16 encoder and a causal block stack, each with ONNX Runtime's fused
 * attention and converted to SigmoidAttention.
 *
 *   tsx bench/cuda/sessions.ts [--json out.json]
 *
 * One run costs milliseconds of host work with large jitter, so what is timed is the slope: the difference between a model of
 * many layers and one of few, in interleaved rounds, divided by the layers between them. Prints the kernel that ONNX Runtime
 * chose when ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO=1 is set.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import * as ort from 'onnxruntime-node';

import { convert, openModel } from '../../converter/index.js';
import { register } from '../../op/node/index.js';
import { transformerModel, type TransformerShape } from './transformer-model.js';

const ROUNDS = 9;
const FEW_LAYERS = 4;
const MANY_LAYERS = 16;

const encoder = { length: 4096, hidden: 768, heads: 12, kvHeads: 12, causal: false } as const;
const gpt = { length: 8192, hidden: 2048, heads: 16, kvHeads: 16, causal: true } as const;
const grouped = { length: 8192, hidden: 2048, heads: 32, kvHeads: 8, causal: true } as const;
const MODELS: Record<string, Omit<TransformerShape, 'layers'>> = {
  'encoder, hidden 768, d 64, N 4096, MultiHeadAttention': { ...encoder, attention: 'MultiHeadAttention' },
  'GPT block, hidden 2048, d 128, causal, N 8192, MultiHeadAttention': {
    ...gpt,
    attention: 'MultiHeadAttention',
  },
  'GPT block, hidden 2048, 32 query and 8 kv heads of 64, causal, N 8192, GroupQueryAttention': {
    ...grouped,
    attention: 'GroupQueryAttention',
  },
};

const OPTIONS: ort.InferenceSession.SessionOptions = { executionProviders: ['cuda'], logSeverityLevel: 3 };

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

async function timeRun(session: ort.InferenceSession, ids: ort.Tensor): Promise<number> {
  const start = performance.now();
  await session.run({ ids });
  return performance.now() - start;
}

/** Median milliseconds a layer of each form, from interleaved rounds. */
async function timeLayers(
  shape: Omit<TransformerShape, 'layers'>,
): Promise<{ fused: number; sigmoid: number }> {
  const ids = new ort.Tensor(
    'int64',
    BigInt64Array.from({ length: shape.length }, (_, i) => BigInt((i * 7919) % 256)),
    [1, shape.length],
  );
  const models = { fused: (m: Uint8Array) => m, sigmoid: toSigmoid };
  const sessions: { form: string; layers: number; session: ort.InferenceSession; times: number[] }[] = [];
  for (const [form, change] of Object.entries(models))
    for (const layers of [FEW_LAYERS, MANY_LAYERS]) {
      const model = change(transformerModel({ ...shape, layers }));
      const session = await ort.InferenceSession.create(model, OPTIONS);
      sessions.push({ form, layers, session, times: [] });
    }
  for (let round = -2; round < ROUNDS; round++)
    for (const { session, times } of sessions) {
      const milliseconds = await timeRun(session, ids);
      if (round >= 0) times.push(milliseconds);
    }
  const slope = (form: string): number => {
    const [few, many] = [FEW_LAYERS, MANY_LAYERS].map((layers) =>
      median(sessions.find((s) => s.form === form && s.layers === layers)!.times),
    );
    return (many! - few!) / (MANY_LAYERS - FEW_LAYERS);
  };
  const result = { fused: slope('fused'), sigmoid: slope('sigmoid') };
  for (const { session } of sessions) await session.release();
  return result;
}

function toSigmoid(model: Uint8Array): Uint8Array {
  const conversion = convert(openModel(model), { mode: 'paper', withoutFunction: true });
  if (conversion.refused.length > 0)
    throw new Error(`not converted: ${conversion.refused.map(({ detail }) => detail).join('; ')}`);
  return conversion.toBytes();
}

const { values: args } = parseArgs({ options: { json: { type: 'string' } } });
register();
const rows = [];
for (const [model, shape] of Object.entries(MODELS)) {
  const { fused, sigmoid } = await timeLayers(shape);
  rows.push({ model, fusedMs: fused, sigmoidMs: sigmoid, ratio: fused / sigmoid });
  console.log(
    `${model}: fused ${fused.toFixed(3)} ms a layer, SigmoidAttention ${sigmoid.toFixed(3)} ms, ratio ${(fused / sigmoid).toFixed(3)}`,
  );
}
if (args.json !== undefined)
  writeFileSync(
    args.json,
    JSON.stringify(
      {
        machine: { ort: ort.env.versions.node },
        rows,
        summary: { worst: Math.min(...rows.map((r) => r.ratio)) },
      },
      null,
      1,
    ) + '\n',
  );
