/**
 * Fits one head so that sigmoid attention gives what softmax attention gave: the sum of squared errors over all rows,
 * by Levenberg-Marquardt with the analytic Jacobian, in float64.
 *
 * The start is what softmax says: its weights are exp(s - l) with l = log sum exp(s), so the number added to a row should
 * be near -l. A ridge regression of -l on the query (and on moments of the row's scores) gives it.
 */
import { solveSymmetric } from './cholesky.js';
import {
  energyOf,
  MOMENTS,
  unfitted,
  type HeadForm,
  type HeadParameters,
  type HeadRows,
} from './head-parameters.js';
import { lossOf, normalEquations, placesOf, unknowns, type NormalEquations } from './normal-equations.js';

export interface HeadFit extends HeadParameters {
  /** |y - o| / |o| over the rows that were fitted. */
  readonly error: number;
  readonly iterations: number;
}

const MAX_ITERATIONS = 30;
const CONVERGED = 1e-3;

/**
 * Share of the target's energy that one unit of distance costs from b = 0, log t = 0, log g = 0. Towards b = -infinity
 * sigmoid becomes an exponential and the error hardly changes, but weights of scores beyond the samples would know no
 * bound. Row terms and shifts are measured in what they move: logits, and the values' own size.
 */
const PRIOR = 5e-5;
const PRIOR_OF_ROW_TERMS = 1e-6;

/** Of the regression that gives the start, relative to each feature's own size. */
const RIDGE = 1e-3;

/**
 * @param blocks rows of one head from all samples
 * @param softcap 0 for none
 * @param start where to begin; what softmax's log sum exp suggests when absent
 */
export function fitHead(
  blocks: readonly HeadRows[],
  softcap: number,
  form: HeadForm,
  start?: HeadParameters,
  maxIterations = MAX_ITERATIONS,
): HeadFit {
  const energy = energyOf(blocks);
  const [first] = blocks;
  if (!first || energy === 0) {
    const parameters = unfitted(first ?? { headSize: 0, valueSize: 0 });
    return { ...parameters, error: 0, iterations: 0 };
  }
  const prior = priorOf(blocks, form, energy);
  let best = start ?? startOf(blocks, form);
  let normal = prior.added(normalEquations(blocks, softcap, best), best);
  let damping = 1e-3;
  let iterations = 0;
  while (iterations < maxIterations) {
    iterations++;
    const next = moved(best, prior.step(normal, damping));
    const tried = prior.added(normalEquations(blocks, softcap, next), next);
    if (tried.loss < normal.loss) {
      const settled = normal.loss - tried.loss < CONVERGED * normal.loss;
      best = next;
      normal = tried;
      if (settled) break;
      damping = Math.max(damping / 6, 1e-7);
    } else {
      damping *= 8;
      if (damping > 1e6) break;
    }
  }
  return { ...best, error: headError(blocks, softcap, best), iterations };
}

/** |y - o| / |o| of parameters that were not fitted here. */
export function headError(blocks: readonly HeadRows[], softcap: number, parameters: HeadParameters): number {
  const energy = energyOf(blocks);
  return energy > 0 ? Math.sqrt(lossOf(blocks, softcap, parameters) / energy) : 0;
}

function moved(from: HeadParameters, step: Float64Array): HeadParameters {
  const layout = { headSize: from.rowQuery.length, valueSize: from.valueShift.length };
  const at = placesOf(layout);
  const factor = (x: number): number => Math.exp(Math.max(-1, Math.min(1, x)));
  return {
    bias: from.bias + step[at.bias]!,
    scale: from.scale * factor(step[at.scale]!),
    gain: from.gain * factor(step[at.gain]!),
    rowQuery: from.rowQuery.map((value, d) => value + step[at.rowQuery + d]!),
    rowMoments: from.rowMoments.map((value, m) => value + step[at.rowMoments + m]!),
    valueShift: from.valueShift.map((value, d) => value + step[at.valueShift + d]!),
    outputShift: from.outputShift.map((value, d) => value + step[at.outputShift + d]!),
  };
}

interface Prior {
  /** Normal equations with the prior. */
  added(normal: NormalEquations, parameters: HeadParameters): NormalEquations;
  /** The damped step; 0 for everything that the form does not fit. */
  step(normal: NormalEquations, damping: number): Float64Array;
}

function priorOf(blocks: readonly HeadRows[], form: HeadForm, energy: number): Prior {
  const [{ headSize, valueSize }] = blocks as [HeadRows];
  const layout = { headSize, valueSize };
  const at = placesOf(layout);
  const size = unknowns(layout);
  const weights = new Float64Array(size);
  weights[at.bias] = weights[at.scale] = weights[at.gain] = PRIOR * energy;
  const small = PRIOR_OF_ROW_TERMS * energy;
  const queryPower = meanSquare(blocks, ({ queries }) => queries);
  weights.fill(small * queryPower, at.rowQuery, at.rowQuery + headSize);
  momentSquares(blocks).forEach((square, m) => (weights[at.rowMoments + m] = small * square));
  weights.fill(small / meanSquare(blocks, ({ values }) => values), at.valueShift);
  const active = new Uint8Array(size);
  active[at.bias] = active[at.scale] = active[at.gain] = 1;
  active.fill(Number(form.rowQuery), at.rowQuery, at.rowMoments);
  active.fill(1, at.rowMoments, at.rowMoments + form.moments);
  active.fill(Number(form.valueShift), at.valueShift, at.outputShift);
  active.fill(Number(form.outputShift), at.outputShift);
  const distances = (p: HeadParameters): Float64Array =>
    Float64Array.of(
      p.bias,
      ...p.rowQuery,
      ...p.rowMoments,
      Math.log(p.scale),
      Math.log(p.gain),
      ...p.valueShift,
      ...p.outputShift,
    );
  return {
    added: ({ loss, gradient, hessian }, parameters) => {
      distances(parameters).forEach((value, i) => {
        loss += weights[i]! * value * value;
        gradient[i]! += weights[i]! * value;
        hessian[i * size + i]! += weights[i]!;
      });
      return { loss, size, gradient, hessian };
    },
    step: ({ gradient, hessian }, damping) => {
      const places = [...active.keys()].filter((place) => active[place] === 1);
      const small = new Float64Array(places.length ** 2);
      places.forEach((from, i) => {
        for (let j = i; j < places.length; j++)
          small[i * places.length + j] = hessian[from * size + places[j]!]!;
        small[i * places.length + i]! *= 1 + damping;
      });
      const right = places.map((place) => -gradient[place]!);
      const solved = solveSymmetric(small, places.length, right);
      const step = new Float64Array(size);
      places.forEach((place, i) => (step[place] = solved?.[i] ?? 0));
      return step;
    },
  };
}

function meanSquare(blocks: readonly HeadRows[], of: (block: HeadRows) => Float32Array): number {
  let sum = 0;
  let count = 0;
  for (const block of blocks) {
    const numbers = of(block);
    for (const value of numbers) sum += value * value;
    count += numbers.length;
  }
  return Math.max(sum / Math.max(1, count), 1e-12);
}

function momentSquares(blocks: readonly HeadRows[]): number[] {
  const sums = new Array<number>(MOMENTS).fill(0);
  let count = 0;
  for (const { rows, moments } of blocks) {
    moments.forEach((value, at) => (sums[at % MOMENTS]! += value * value));
    count += rows;
  }
  return sums.map((sum) => Math.max(sum / Math.max(1, count), 1e-12));
}

/** Row terms from a ridge regression of -(log sum exp - log n), shifts from the mean of the values. */
function startOf(blocks: readonly HeadRows[], form: HeadForm): HeadParameters {
  const [first] = blocks as [HeadRows];
  const { headSize, valueSize } = first;
  const start = unfitted(first);
  const isShifted = form.valueShift && form.outputShift;
  const mean = isShifted ? meanValues(blocks, valueSize) : start.outputShift;
  const shifted = { ...start, valueShift: mean.map((value) => -value || 0), outputShift: mean };
  if (!form.rowQuery) return shifted;
  const count = 1 + headSize + form.moments;
  const upper = new Float64Array(count * count);
  const right = new Float64Array(count);
  const features = new Float64Array(count);
  features[0] = 1;
  let total = 0;
  for (const block of blocks) {
    for (let row = 0; row < block.rows; row++) {
      for (let d = 0; d < headSize; d++) features[1 + d] = block.queries[row * headSize + d]!;
      for (let m = 0; m < form.moments; m++) features[1 + headSize + m] = block.moments[row * MOMENTS + m]!;
      const wanted = -(logSumExp(block, row) + block.rowBias[row]!);
      if (!Number.isFinite(wanted)) continue;
      total++;
      for (let k = 0; k < count; k++) {
        for (let l = k; l < count; l++) upper[k * count + l]! += features[k]! * features[l]!;
        right[k]! += features[k]! * wanted;
      }
    }
  }
  for (let k = 0; k < count; k++) upper[k * count + k]! *= 1 + RIDGE;
  for (let k = 0; k < count; k++) upper[k * count + k]! += 1e-9 * total;
  const solved = solveSymmetric(upper, count, right);
  if (!solved) return shifted;
  return {
    ...shifted,
    bias: solved[0]!,
    rowQuery: [...solved.subarray(1, 1 + headSize)],
    rowMoments: start.rowMoments.map((_, m) => solved[1 + headSize + m] ?? 0),
  };
}

function meanValues(blocks: readonly HeadRows[], valueSize: number): number[] {
  const mean = new Array<number>(valueSize).fill(0);
  const count = blocks.reduce((sum, { keys }) => sum + keys, 0);
  for (const { values } of blocks)
    values.forEach((value, index) => (mean[index % valueSize]! += value / count));
  return mean;
}

function logSumExp({ keys, scores, addends }: HeadRows, row: number): number {
  let largest = -Infinity;
  for (let key = 0, at = row * keys; key < keys; key++, at++)
    largest = Math.max(largest, scores[at]! + (addends?.[at] ?? 0));
  let sum = 0;
  for (let key = 0, at = row * keys; key < keys; key++, at++)
    sum += Math.exp(scores[at]! + (addends?.[at] ?? 0) - largest);
  return largest + Math.log(sum);
}
