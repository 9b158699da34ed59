/** The fit of one head: it recovers parameters that are there, beats its neighbours, and does the same every time. */
import assert from 'node:assert/strict';
import { fitHead as fitForm, headError, type HeadFit } from '../../converter/calibrate/fit.js';
import {
  MOMENTS,
  PLAIN,
  unfitted,
  type HeadForm,
  type HeadParameters,
  type HeadRows,
} from '../../converter/calibrate/head-parameters.js';
import { RandomNumbers } from '../../converter/data/random-numbers.js';

const [HEAD_SIZE, VALUE_SIZE] = [4, 6];
const START = unfitted({ headSize: HEAD_SIZE, valueSize: VALUE_SIZE });

const fitHead = (blocks: readonly HeadRows[], softcap: number, form: HeadForm = PLAIN): HeadFit =>
  fitForm(blocks, softcap, form);

type Weights = (logits: number[]) => number[];

const sigmoid =
  ({ bias, scale, gain }: Pick<HeadParameters, 'bias' | 'scale' | 'gain'>): Weights =>
  (scores) =>
    scores.map((score) => gain / (1 + Math.exp(-(scale * score + bias - Math.log(scores.length)))));

const softmax: Weights = (scores) => {
  const exps = scores.map((score) => Math.exp(score));
  const sum = exps.reduce((a, b) => a + b);
  return exps.map((value) => value / sum);
};

function rowsFor(weights: Weights, seed: number, spread = 1, softcap = 0): HeadRows {
  const random = new RandomNumbers(seed);
  const [rows, keys, valueSize, headSize] = [40, 24, VALUE_SIZE, HEAD_SIZE];
  const scores = Float32Array.from({ length: rows * keys }, () => spread * random.normal());
  const values = Float32Array.from({ length: keys * valueSize }, () => random.normal());
  const target = new Float32Array(rows * valueSize);
  for (let row = 0; row < rows; row++) {
    const own = Array.from(scores.subarray(row * keys, (row + 1) * keys), (score) =>
      softcap > 0 ? softcap * Math.tanh(score / softcap) : score,
    );
    weights(own).forEach((weight, key) => {
      for (let d = 0; d < valueSize; d++)
        target[row * valueSize + d]! += weight * values[key * valueSize + d]!;
    });
  }
  const rowBias = new Float32Array(rows).fill(-Math.log(keys));
  const queries = Float32Array.from({ length: rows * headSize }, () => random.normal());
  const moments = new Float32Array(rows * MOMENTS);
  for (let row = 0; row < rows; row++) {
    const own = scores.subarray(row * keys, (row + 1) * keys);
    const mean = own.reduce((sum, score) => sum + score, 0) / keys;
    const variance = own.reduce((sum, score) => sum + (score - mean) ** 2, 0) / keys;
    moments.set([mean, variance, Math.sqrt(variance)], row * MOMENTS);
  }
  return {
    rows,
    keys,
    headSize,
    valueSize,
    queries,
    scores,
    moments,
    addends: null,
    rowBias,
    values,
    target,
  };
}

describe('fit of a head', () => {
  it('recovers bias, temperature and gain of a sigmoid head, but for the prior', () => {
    const truth = { bias: 1.3, scale: 0.7, gain: 0.45 };
    const fit = fitHead([rowsFor(sigmoid(truth), 1), rowsFor(sigmoid(truth), 2)], 0);
    assert.ok(fit.error < 2e-3, String(fit.error));
    assert.ok(Math.abs(fit.bias - truth.bias) < 0.05);
    assert.ok(Math.abs(fit.scale - truth.scale) < 0.02);
    assert.ok(Math.abs(fit.gain - truth.gain) < 0.02);
  });

  it('comes near softmax, and no neighbour is nearer', () => {
    const blocks = [rowsFor(softmax, 3), rowsFor(softmax, 4)];
    const fit = fitHead(blocks, 0);
    assert.ok(fit.error < headError(blocks, 0, START));
    for (const [name, step] of [
      ['bias', 0.05],
      ['scale', 0.02],
      ['gain', 0.02],
    ] as const) {
      for (const sign of [-1, 1]) {
        const neighbour = { ...fit, [name]: fit[name] + sign * step };
        assert.ok(headError(blocks, 0, neighbour) > fit.error, `${name} ${sign}`);
      }
    }
  });

  it('fits held-back rows of the same kind as well as its own', () => {
    const blocks = (first: number): HeadRows[] =>
      Array.from({ length: 12 }, (_, index) => rowsFor(softmax, first + index));
    const fit = fitHead(blocks(100), 0);
    const heldBack = headError(blocks(200), 0, fit);
    assert.ok(heldBack < 1.3 * fit.error, `${heldBack} ${fit.error}`);
  });

  it('takes the soft cap into account', () => {
    const blocks = [rowsFor(softmax, 8, 3, 2)];
    assert.ok(fitHead(blocks, 2).error < fitHead(blocks, 0).error);
  });

  it('leaves masked keys out, whatever their values', () => {
    const block = rowsFor(softmax, 9);
    const addends = new Float32Array(block.rows * block.keys);
    for (let row = 0; row < block.rows; row++) addends[row * block.keys] = -Infinity;
    const values = Float32Array.from(block.values);
    const fit = fitHead([{ ...block, addends, values }], 0);
    values.fill(1e6, 0, block.valueSize);
    assert.deepEqual(fitHead([{ ...block, addends, values }], 0), fit);
  });

  it('gives nothing to fit where the target is zero', () => {
    const block = rowsFor(softmax, 10);
    block.target.fill(0);
    const fit = fitHead([block], 0);
    assert.deepEqual([fit.bias, fit.scale, fit.gain, fit.error], [0, 1, 1, 0]);
  });
});
