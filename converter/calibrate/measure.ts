/**
 * What the paper says matters when softmax becomes sigmoid, measured per site and head on inputs: how large the attention
 * output is under either activation, the largest score, how peaked softmax is, how far sigmoid saturates.
 */
import { SATURATING } from '../rewrite/mask-tensor.js';
import { rowScores, type CapturedCall } from './captured-call.js';

export interface HeadStatistics {
  /** Largest score with mask and position terms, over all rows. */
  readonly largestScore: number;
  /** Smallest over all rows of the row's largest score: how much a bias common to all rows has to span. */
  readonly smallestRowPeak: number;
  /** The same two with the mean over the keys of the row subtracted, as `centreScores` does. */
  readonly centred: { readonly largestScore: number; readonly smallestRowPeak: number };
  /** Mean over rows of |softmax(QK') V| and of |sigmoid(QK' + b) V| with b = -log n, Euclidean. */
  readonly softmaxNorm: number;
  readonly sigmoidNorm: number;
  /** Mean over rows of softmax's entropy over its largest possible value, log n: 1 is uniform, 0 one key. */
  readonly entropy: number;
  /** Share of weights sigmoid(s - log n) above 0.9. */
  readonly saturation: number;
  /** Mean and standard deviation over rows of log sum exp of the scores less log n; sigmoid with one bias a head needs a small deviation. */
  readonly logSumExp: { readonly mean: number; readonly deviation: number };
}

/** Rows of one call that are looked at; more tell nothing new. */
const ROWS = 256;

export class HeadMeter {
  #rows = 0;
  #largest = -Infinity;
  #smallestPeak = Infinity;
  #largestCentred = -Infinity;
  #smallestCentredPeak = Infinity;
  #softmaxNorm = 0;
  #sigmoidNorm = 0;
  #entropy = 0;
  #weights = 0;
  #saturated = 0;
  #lse = 0;
  #lseSquared = 0;

  /** @param h query head */
  add(call: CapturedCall, h: number): void {
    const { batch, queryLength, headSize, valueHeadSize } = call.sizes;
    const step = Math.max(1, Math.floor(queryLength / ROWS));
    for (let b = 0; b < batch; b++) {
      const arrays = call.head(b, h);
      for (let i = 0; i < queryLength; i += step) {
        const scores = rowScores(arrays, i, headSize, call.scaleOf(h));
        const addends = call.addends(b, h, i);
        const centring = scores.subarray(0, call.isCausal ? i + 1 : scores.length);
        const mean = centring.reduce((sum, score) => sum + score, 0) / centring.length;
        for (let j = 0; j < scores.length; j++) {
          const capped = call.softcap > 0 ? call.softcap * Math.tanh(scores[j]! / call.softcap) : scores[j]!;
          scores[j] = capped + (addends?.[j] ?? 0);
        }
        this.#addRow(scores, mean, arrays.values, valueHeadSize);
      }
    }
  }

  #addRow(scores: Float32Array, mean: number, values: Float32Array, valueSize: number): void {
    const peak = scores.reduce((max, score) => Math.max(max, score), -Infinity);
    // No key is left, or the row was hidden as a whole and lifted so that its weights are all 1.
    if (!Number.isFinite(peak) || peak > SATURATING / 2) return;
    // Keys so far below that no weight is left count as masked.
    const taking = scores.filter((score) => score > peak - 1000).length;
    const logCount = Math.log(taking);
    const soft = new Float64Array(valueSize);
    const sigmoid = new Float64Array(valueSize);
    let sum = 0;
    let weighted = 0;
    for (let j = 0; j < scores.length; j++) {
      const score = scores[j]!;
      if (!(score > peak - 1000)) continue;
      const weight = Math.exp(score - peak);
      sum += weight;
      weighted += weight * (score - peak);
      const gate = 1 / (1 + Math.exp(logCount - score));
      if (gate > 0.9) this.#saturated++;
      for (let d = 0; d < valueSize; d++) {
        const value = values[j * valueSize + d]!;
        soft[d]! += weight * value;
        sigmoid[d]! += gate * value;
      }
    }
    const logSum = Math.log(sum);
    const lse = peak + logSum - logCount;
    this.#rows++;
    this.#weights += taking;
    this.#largest = Math.max(this.#largest, peak);
    this.#smallestPeak = Math.min(this.#smallestPeak, peak);
    this.#largestCentred = Math.max(this.#largestCentred, peak - mean);
    this.#smallestCentredPeak = Math.min(this.#smallestCentredPeak, peak - mean);
    this.#softmaxNorm += Math.hypot(...soft) / sum;
    this.#sigmoidNorm += Math.hypot(...sigmoid);
    this.#entropy += taking > 1 ? (logSum - weighted / sum) / logCount : 0;
    this.#lse += lse;
    this.#lseSquared += lse * lse;
  }

  result(): HeadStatistics {
    const rows = Math.max(1, this.#rows);
    const mean = this.#lse / rows;
    return {
      largestScore: this.#largest,
      smallestRowPeak: this.#smallestPeak,
      centred: { largestScore: this.#largestCentred, smallestRowPeak: this.#smallestCentredPeak },
      softmaxNorm: this.#softmaxNorm / rows,
      sigmoidNorm: this.#sigmoidNorm / rows,
      entropy: this.#entropy / rows,
      saturation: this.#saturated / Math.max(1, this.#weights),
      logSumExp: { mean, deviation: Math.sqrt(Math.max(0, this.#lseSquared / rows - mean * mean)) },
    };
  }
}
