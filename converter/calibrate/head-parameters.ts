/**
 * What is fitted for one head, and the rows it is fitted to. The head's output for a row with query q, scores s, mask and
 * position terms a, and bias_mode term c is
 *
 *     y = gain * sum_j sigmoid(scale s_j + a_j + bias + c + r) (v_j + valueShift) + outputShift
 *     r = rowQuery . q + rowMoments . (mean(s), variance(s), deviation(s))
 *
 * Softmax sees neither a number added to a row nor a vector added to all values and taken from the output again, so a
 * model trained with it puts anything there; rowQuery, rowMoments and the shifts take that out for the sigmoid.
 */

/** Moments of a row's scores that a row term may hold. */
export const MOMENTS = 3;

/** Rows of one head that share keys and values. */
export interface HeadRows {
  readonly rows: number;
  readonly keys: number;
  readonly headSize: number;
  readonly valueSize: number;
  /** `[rows, headSize]` */
  readonly queries: Float32Array;
  /** `[rows, keys]`, scaled, before temperature, soft cap and addends. */
  readonly scores: Float32Array;
  /**
   * `[rows, MOMENTS]`: mean, variance and standard deviation of the row's scores over the keys, or over those up to its own
   * where attention is causal.
   */
  readonly moments: Float32Array;
  /** `[rows, keys]` added after temperature and soft cap, -Infinity where the key takes no part; `null`: nothing. */
  readonly addends: Float32Array | null;
  /** `[rows]`: what bias_mode adds, -log n. */
  readonly rowBias: Float32Array;
  /** `[keys, valueSize]` */
  readonly values: Float32Array;
  /** `[rows, valueSize]` */
  readonly target: Float32Array;
}

export interface HeadParameters {
  readonly bias: number;
  readonly scale: number;
  readonly gain: number;
  /** `[headSize]` */
  readonly rowQuery: readonly number[];
  /** `[MOMENTS]` */
  readonly rowMoments: readonly number[];
  /** `[valueSize]` */
  readonly valueShift: readonly number[];
  readonly outputShift: readonly number[];
}

/** Which parameters are fitted besides bias, scale and gain; the others stay 0. */
export interface HeadForm {
  readonly rowQuery: boolean;
  /** So many of the moments. */
  readonly moments: number;
  readonly valueShift: boolean;
  readonly outputShift: boolean;
}

export const PLAIN: HeadForm = { rowQuery: false, moments: 0, valueShift: false, outputShift: false };

/** Sigmoid with nothing but the bias_mode term. */
export function unfitted({ headSize, valueSize }: Pick<HeadRows, 'headSize' | 'valueSize'>): HeadParameters {
  const zeros = (count: number): number[] => new Array<number>(count).fill(0);
  return {
    bias: 0,
    scale: 1,
    gain: 1,
    rowQuery: zeros(headSize),
    rowMoments: zeros(MOMENTS),
    valueShift: zeros(valueSize),
    outputShift: zeros(valueSize),
  };
}

export const energyOf = (blocks: readonly HeadRows[]): number =>
  blocks.reduce((sum, { target }) => sum + target.reduce((s, x) => s + x * x, 0), 0);
