/** Runs original and converted model on the same inputs, turn by turn, and measures both. */

import type * as Ort from 'onnxruntime-web/webgpu';
import { GpuMemory } from './gpu-memory.js';
import { plausibleFeeds, type Sizes } from './inputs.js';

export type Which = 'original' | 'converted';

export interface Comparison {
  /** Milliseconds of a run, the middle of several. */
  readonly milliseconds: Readonly<Record<Which, number>>;
  /** Most bytes of GPU buffers from the model's creation on; absent without WebGPU. */
  readonly gpuBytes: Readonly<Record<Which, number>> | undefined;
  /** Largest difference of any output element, and the largest element. */
  readonly difference: number;
  readonly largest: number;
  readonly runs: number;
}

/** Runs of each model after the first until it runs as it will from then on: ours watches the runtime before it does without. */
const PREPARING_RUNS = 3;
/** Runs of each model that count. */
const RUNS = 5;

export interface Pair {
  readonly sessions: Readonly<Record<Which, Ort.InferenceSession>>;
  readonly createdBytes: Readonly<Record<Which, number>> | undefined;
  release(): Promise<void>;
}

let memory: GpuMemory | undefined;

/** Creates both sessions on the given provider. */
export async function createPair(
  ort: typeof Ort,
  models: Readonly<Record<Which, Uint8Array>>,
  options: Ort.InferenceSession.SessionOptions,
  device: GPUDevice | undefined,
): Promise<Pair> {
  if (device !== undefined) memory ??= new GpuMemory(device);
  const bytes: Partial<Record<Which, number>> = {};
  const create = async (which: Which): Promise<Ort.InferenceSession> => {
    const before = memory?.begin() ?? 0;
    const session = await ort.InferenceSession.create(models[which], options);
    bytes[which] = (memory?.peak ?? 0) - before;
    return session;
  };
  const original = await create('original');
  const converted = await create('converted');
  return {
    sessions: { original, converted },
    createdBytes: memory === undefined ? undefined : (bytes as Record<Which, number>),
    release: async () => {
      await original.release();
      await converted.release();
    },
  };
}

/** @param progress is told what is being done */
export async function compare(
  ort: typeof Ort,
  { sessions, createdBytes }: Pair,
  sizes: Sizes,
  progress: (what: string) => void,
): Promise<Comparison> {
  const feeds = plausibleFeeds(ort, sessions.original.inputMetadata, sizes, 1);
  const outputs: Partial<Record<Which, Ort.InferenceSession.ReturnType>> = {};
  const gpuBytes: Partial<Record<Which, number>> = {};
  for (const which of ['original', 'converted'] as const) {
    progress(`First run of the ${which} model, which compiles its shaders…`);
    const before = memory?.begin() ?? 0;
    outputs[which] = await sessions[which].run(feeds);
    for (let run = 0; run < PREPARING_RUNS; run++) {
      progress(`Preparing run ${run + 1} of ${PREPARING_RUNS}, ${which}…`);
      await sessions[which].run(feeds);
    }
    gpuBytes[which] = (createdBytes?.[which] ?? 0) + (memory?.peak ?? 0) - before;
  }
  const times: Record<Which, number[]> = { original: [], converted: [] };
  for (let run = 0; run < RUNS; run++)
    for (const which of ['original', 'converted'] as const) {
      progress(`Run ${run + 1} of ${RUNS}, ${which}…`);
      const start = performance.now();
      await sessions[which].run(feeds);
      times[which].push(performance.now() - start);
    }
  return {
    milliseconds: { original: middle(times.original), converted: middle(times.converted) },
    gpuBytes: createdBytes === undefined ? undefined : (gpuBytes as Record<Which, number>),
    ...differenceOf(outputs.original!, outputs.converted!),
    runs: RUNS,
  };
}

function middle(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

function differenceOf(
  original: Ort.InferenceSession.ReturnType,
  converted: Ort.InferenceSession.ReturnType,
): { difference: number; largest: number } {
  let difference = 0;
  let largest = 0;
  for (const [name, { data }] of Object.entries(original)) {
    const [a, b] = [data as ArrayLike<number>, converted[name]!.data as ArrayLike<number>];
    for (let i = 0; i < a.length; i++) {
      const [x, y] = [Number(a[i]), Number(b[i])];
      if (Math.abs(x) > largest) largest = Math.abs(x);
      if (!(Math.abs(x - y) <= difference) && !(x === y)) difference = Math.abs(x - y);
    }
  }
  return { difference, largest };
}
