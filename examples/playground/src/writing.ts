/** Lets a character model write: one character after another, each drawn from the model's distribution. */

import type * as Ort from 'onnxruntime-web/webgpu';
import { RandomNumbers } from '../../../converter/data/random-numbers.js';
import { CHARACTERS } from './vocabulary.js';

/** Positions that the shipped models know. */
const CONTEXT = 256;
const TEMPERATURE = 0.7;

/** True for a model of token ids [batch, seq] and logits over our characters. */
export function isCharacterModel({ inputMetadata, outputMetadata }: Ort.InferenceSession): boolean {
  const [input] = inputMetadata;
  const [output] = outputMetadata;
  return (
    inputMetadata.length === 1 &&
    input?.isTensor === true &&
    input.type === 'int64' &&
    input.shape.length === 2 &&
    output?.isTensor === true &&
    output.shape.at(-1) === CHARACTERS.length
  );
}

/**
 * Yields one character at a time. The same seed gives the same choices, so that two models differ only where their
 * distributions do.
 */
export async function* write(
  ort: typeof Ort,
  session: Ort.InferenceSession,
  beginning: string,
  count: number,
  seed = 1,
): AsyncGenerator<string> {
  const random = new RandomNumbers(seed);
  const ids = [...beginning].map((character) => Math.max(0, CHARACTERS.indexOf(character)));
  if (ids.length === 0) ids.push(0);
  for (let written = 0; written < count; written++) {
    const window = ids.slice(-CONTEXT);
    const input = new ort.Tensor('int64', BigInt64Array.from(window.map(BigInt)), [1, window.length]);
    const { [session.outputNames[0]!]: logits } = await session.run({ [session.inputNames[0]!]: input });
    const last = (logits!.data as Float32Array).subarray(-CHARACTERS.length);
    const id = draw(last, random.uniform());
    ids.push(id);
    yield CHARACTERS[id]!;
  }
}

function draw(logits: Float32Array, at: number): number {
  const top = logits.reduce((a, b) => Math.max(a, b));
  const weights = Array.from(logits, (logit) => Math.exp((logit - top) / TEMPERATURE));
  let rest = at * weights.reduce((sum, weight) => sum + weight, 0);
  for (const [id, weight] of weights.entries()) if ((rest -= weight) <= 0) return id;
  return weights.length - 1;
}
