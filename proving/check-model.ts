/** Converts one model and compares what original and converted model compute. */
import * as ort from 'onnxruntime-node';
import type { Feeds, Sample } from '../converter/data/tensor.js';
import { convert, openModel, type Mode } from '../converter/index.js';

export interface Outcome {
  readonly replaced: number;
  readonly refused: readonly string[];
  /** Largest difference of an output, relative to the largest output (at least 1); `null` when nothing was compared. */
  readonly error: number | null;
  readonly failure: string | null;
}

export interface CheckOptions {
  readonly mode: Mode;
  readonly withoutFunction?: boolean;
  /** What the original computes for each feed; without it the original is run. */
  readonly expected?: readonly Feeds[];
}

const half = (bits: number): number => {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size =
    exponent === 0
      ? fraction * 2 ** -24
      : exponent === 31
        ? fraction
          ? NaN
          : Infinity
        : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -size : size;
};

function numbers(tensor: Numbers): Float64Array {
  const { data } = tensor;
  if (tensor.type === 'float16') return Float64Array.from(data as Uint16Array, half);
  return Float64Array.from(data as Float32Array, Number);
}

export async function checkModel(
  bytes: Uint8Array,
  feeds: readonly Feeds[],
  options: CheckOptions,
): Promise<Outcome> {
  const conversion = convert(openModel(bytes), options);
  const refused = conversion.refused.map(({ name, reason, detail }) => `${name}: ${reason} (${detail})`);
  const outcome = { replaced: conversion.replaced.length, refused };
  if (outcome.replaced === 0) return { ...outcome, error: null, failure: null };
  try {
    const settings = { intraOpNumThreads: 1, logSeverityLevel: 4 } as const;
    // A model without the portable function runs on the kernel.
    if (conversion.portableFormMissing !== null) await import('../op/node/index.js');
    const original = options.expected ? null : await ort.InferenceSession.create(bytes, settings);
    const converted = await ort.InferenceSession.create(conversion.toBytes(), settings);
    let error = 0;
    for (const [i, feed] of feeds.entries()) {
      const inputs = Object.fromEntries(
        converted.inputNames.map((name) => {
          const sample = feed[name]!;
          return [name, new ort.Tensor(sample.type, sample.data as Float32Array, [...sample.dims])];
        }),
      );
      const expected = original === null ? options.expected![i]! : await original.run(inputs);
      const found = await converted.run(inputs);
      for (const [name, value] of Object.entries(expected))
        error = Math.max(error, difference(value, found[name]!));
    }
    await original?.release();
    await converted.release();
    return { ...outcome, error, failure: null };
  } catch (problem) {
    return { ...outcome, error: null, failure: String(problem) };
  }
}

type Numbers = Pick<ort.Tensor, 'type' | 'dims' | 'data'> | Sample;

function difference(expected: Numbers, found: Numbers): number {
  if (expected.dims.join() !== found.dims.join() || expected.type !== found.type) return Infinity;
  const a = numbers(expected);
  const b = numbers(found);
  let worst = 0;
  let largest = 1;
  for (let i = 0; i < a.length; i++) {
    if (Number.isFinite(a[i]!)) largest = Math.max(largest, Math.abs(a[i]!));
    if (a[i] === b[i] || (Number.isNaN(a[i]!) && Number.isNaN(b[i]!))) continue;
    const distance = Math.abs(a[i]! - b[i]!);
    worst = Math.max(worst, Number.isNaN(distance) ? Infinity : distance);
  }
  return worst / largest;
}
