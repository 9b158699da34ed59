/** Writes one attention layer in the spelling of a recipe, with inputs to run it on. */
import type { Feeds } from '../../../converter/data/tensor.js';
import { repeatHeads } from './cache.js';
import { addMask } from './masks.js';
import { projectOperands } from './operands.js';
import type { Random } from './random.js';
import type { Recipe } from './recipe.js';
import { finish, valueProduct } from './result.js';
import { addBias, scaleOperands, scaleScores, scoreProduct } from './scores.js';
import { activate, afterActivation } from './weights.js';
import { Writer } from './writer.js';

export interface Spelled {
  readonly bytes: Uint8Array;
  readonly feeds: Feeds;
}

export function spell(recipe: Recipe, random: Random): Spelled {
  const w = new Writer(recipe, random);
  const operands = repeatHeads(w, projectOperands(w));
  const scaled = scaleOperands(w, operands);
  let scores = scaleScores(w, scoreProduct(w, scaled.query, scaled.key));
  if (recipe.softcap)
    scores = w.b.op('Mul', [w.b.op('Tanh', [w.b.op('Div', [scores, w.scalar(20)])]), w.scalar(20)]);
  scores = addMask(w, addBias(w, scores));
  const weights = afterActivation(w, activate(w, scores));
  finish(w, valueProduct(w, weights, operands.value));
  return { bytes: w.b.toBytes(), feeds: w.feeds };
}
