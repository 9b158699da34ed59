/**
 * Normal equations of one head's fit, summed row by row: loss, J'e and J'J of the Gauss-Newton step. Per row the derivative
 * by everything that enters the logit as a number per row is one vector of the size of a value times that number, so J'J
 * costs little beside the sum over keys.
 *
 * Unknowns in this order: bias, rowQuery, rowMoments, log scale, log gain, valueShift, outputShift.
 */
import { MOMENTS, type HeadParameters, type HeadRows } from './head-parameters.js';

export interface NormalEquations {
  readonly loss: number;
  readonly size: number;
  readonly gradient: Float64Array;
  /** `[size, size]`, the upper triangle. */
  readonly hessian: Float64Array;
}

export interface Layout {
  readonly headSize: number;
  readonly valueSize: number;
}

export const unknowns = ({ headSize, valueSize }: Layout): number => headSize + 3 + MOMENTS + 2 * valueSize;

/** Places of the unknowns. */
export const placesOf = ({
  headSize,
  valueSize,
}: Layout): {
  bias: number;
  rowQuery: number;
  rowMoments: number;
  scale: number;
  gain: number;
  valueShift: number;
  outputShift: number;
} => ({
  bias: 0,
  rowQuery: 1,
  rowMoments: 1 + headSize,
  scale: 1 + headSize + MOMENTS,
  gain: 2 + headSize + MOMENTS,
  valueShift: 3 + headSize + MOMENTS,
  outputShift: 3 + headSize + MOMENTS + valueSize,
});

/** Weights below this add nothing to a sum of float32. */
const NEGLIGIBLE = 1e-10;

/** Sum of squared errors over all rows. */
export function lossOf(blocks: readonly HeadRows[], softcap: number, parameters: HeadParameters): number {
  let loss = 0;
  for (const block of blocks) {
    const sums = new RowSums(block, softcap, parameters, false);
    for (let row = 0; row < block.rows; row++) loss += sums.at(row);
  }
  return loss;
}

export function normalEquations(
  blocks: readonly HeadRows[],
  softcap: number,
  parameters: HeadParameters,
): NormalEquations {
  const [{ headSize, valueSize }] = blocks as [HeadRows];
  const at = placesOf({ headSize, valueSize });
  const size = unknowns({ headSize, valueSize });
  const hessian = new Float64Array(size * size);
  const gradient = new Float64Array(size);
  const features = new Float64Array(1 + headSize + MOMENTS);
  const count = features.length;
  const { scale, gain } = parameters;
  let loss = 0;
  for (const block of blocks) {
    const sums = new RowSums(block, softcap, parameters, true);
    const { y, byLogit, byScale, error } = sums;
    for (let row = 0; row < block.rows; row++) {
      loss += sums.at(row);
      const filled = gain * sums.weightSum;
      features[0] = 1;
      for (let d = 0; d < headSize; d++) features[1 + d] = block.queries[row * headSize + d]!;
      for (let m = 0; m < MOMENTS; m++) features[1 + headSize + m] = block.moments[row * MOMENTS + m]!;
      let aa = 0;
      let atProduct = 0;
      let ay = 0;
      let ae = 0;
      let tt = 0;
      let ty = 0;
      let te = 0;
      let yy = 0;
      let ye = 0;
      for (let d = 0; d < valueSize; d++) {
        const a = (byLogit[d]! *= gain);
        const t = (byScale[d]! *= gain * scale);
        const own = (y[d]! *= gain);
        const e = error[d]!;
        aa += a * a;
        atProduct += a * t;
        ay += a * own;
        ae += a * e;
        tt += t * t;
        ty += t * own;
        te += t * e;
        yy += own * own;
        ye += own * e;
      }
      for (let k = 0; k < count; k++) {
        const f = features[k]!;
        const start = k * size;
        const weighted = aa * f;
        for (let l = k; l < count; l++) hessian[start + l]! += weighted * features[l]!;
        hessian[start + at.scale]! += atProduct * f;
        hessian[start + at.gain]! += ay * f;
        gradient[k]! += ae * f;
        const shift = start + at.valueShift;
        const output = start + at.outputShift;
        const byShift = f * filled;
        for (let d = 0; d < valueSize; d++) {
          hessian[shift + d]! += byShift * byLogit[d]!;
          hessian[output + d]! += f * byLogit[d]!;
        }
      }
      const scaleRow = at.scale * size;
      const gainRow = at.gain * size;
      hessian[scaleRow + at.scale]! += tt;
      hessian[scaleRow + at.gain]! += ty;
      hessian[gainRow + at.gain]! += yy;
      gradient[at.scale]! += te;
      gradient[at.gain]! += ye;
      for (let d = 0; d < valueSize; d++) {
        const u = at.valueShift + d;
        const c = at.outputShift + d;
        hessian[scaleRow + u]! += filled * byScale[d]!;
        hessian[scaleRow + c]! += byScale[d]!;
        hessian[gainRow + u]! += filled * y[d]!;
        hessian[gainRow + c]! += y[d]!;
        hessian[u * size + u]! += filled * filled;
        hessian[u * size + c]! += filled;
        hessian[c * size + c]! += 1;
        gradient[u]! += filled * error[d]!;
        gradient[c]! += error[d]!;
      }
    }
  }
  return { loss, size, gradient, hessian };
}

/** The sums over the keys of one row. */
class RowSums {
  readonly y: Float64Array;
  /** Derivatives of y by the row's logits and by the temperature. */
  readonly byLogit: Float64Array;
  readonly byScale: Float64Array;
  readonly error: Float64Array;
  weightSum = 0;
  readonly #values: Float64Array;

  constructor(
    private readonly block: HeadRows,
    private readonly softcap: number,
    private readonly parameters: HeadParameters,
    private readonly derives: boolean,
  ) {
    const { valueSize, values } = block;
    const { valueShift } = parameters;
    this.y = new Float64Array(valueSize);
    this.byLogit = new Float64Array(valueSize);
    this.byScale = new Float64Array(valueSize);
    this.error = new Float64Array(valueSize);
    this.#values = Float64Array.from(values, (value, index) => value + valueShift[index % valueSize]!);
  }

  /** Works out row `row` and returns its squared error. */
  at(row: number): number {
    const { keys, headSize, valueSize, scores, addends, queries, moments, rowBias, target } = this.block;
    const { bias, scale, gain, rowQuery, rowMoments, outputShift } = this.parameters;
    const { softcap, derives, y, byLogit, byScale, error } = this;
    const values = this.#values;
    y.fill(0);
    byLogit.fill(0);
    byScale.fill(0);
    let offset = bias + rowBias[row]!;
    for (let m = 0; m < MOMENTS; m++) offset += rowMoments[m]! * moments[row * MOMENTS + m]!;
    for (let d = 0; d < headSize; d++) offset += rowQuery[d]! * queries[row * headSize + d]!;
    let weightSum = 0;
    for (let key = 0, from = row * keys; key < keys; key++, from++) {
      let slope = scores[from]!;
      let logit = scale * slope;
      if (softcap > 0) {
        const squashed = Math.tanh(logit / softcap);
        logit = softcap * squashed;
        slope *= 1 - squashed * squashed;
      }
      if (addends !== null) logit += addends[from]!;
      const weight = 1 / (1 + Math.exp(-(logit + offset)));
      if (weight < NEGLIGIBLE) continue;
      weightSum += weight;
      let index = key * valueSize;
      if (derives) {
        const a = weight * (1 - weight);
        const t = a * slope;
        for (let d = 0; d < valueSize; d++, index++) {
          const value = values[index]!;
          y[d]! += weight * value;
          byLogit[d]! += a * value;
          byScale[d]! += t * value;
        }
      } else for (let d = 0; d < valueSize; d++, index++) y[d]! += weight * values[index]!;
    }
    this.weightSum = weightSum;
    let loss = 0;
    for (let d = 0; d < valueSize; d++) {
      const e = gain * y[d]! + outputShift[d]! - target[row * valueSize + d]!;
      error[d] = e;
      loss += e * e;
    }
    return loss;
  }
}
