/**
 * Fits one head's bias b, temperature t and gain g so that sigmoid attention gives what softmax attention gave:
 *
 *     minimise  sum over rows  | g * sum_j sigmoid(t s_j + a_j + b + c) v_j  -  o |^2
 *
 * with s the scores, a mask and position terms, c the row's bias_mode term, o the row's softmax output. Three unknowns and
 * many rows: Levenberg-Marquardt with the analytic Jacobian, in float64.
 */

/** Rows of one head that share keys and values. */
export interface HeadRows {
  readonly rows: number;
  readonly keys: number;
  readonly valueSize: number;
  /** `[rows, keys]`, scaled, before temperature, soft cap and addends. */
  readonly scores: Float32Array;
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
}

export interface HeadFit extends HeadParameters {
  /** |y - o| / |o| over all rows, with the fitted parameters. */
  readonly error: number;
  /** The same with `start`. */
  readonly startError: number;
  readonly iterations: number;
}

interface Normal {
  readonly loss: number;
  /** Upper triangle of J'J: bb, bt, bg, tt, tg, gg. */
  readonly hessian: Float64Array;
  /** J'e for b, t, g. */
  readonly gradient: Float64Array;
}

const MAX_ITERATIONS = 40;
const CONVERGED = 1e-5;

/**
 * Share of the target's energy that one unit of distance from b = 0, t = 1, g = 1 costs. Towards b = -infinity sigmoid
 * becomes an exponential and the error hardly changes, but weights of scores beyond the samples would know no bound.
 */
const PRIOR = 5e-5;

/**
 * @param blocks rows of one head from all samples
 * @param softcap 0 for none
 */
export function fitHead(blocks: readonly HeadRows[], softcap: number, start: HeadParameters): HeadFit {
  const energy = blocks.reduce((sum, { target }) => sum + target.reduce((s, x) => s + x * x, 0), 0);
  const relative = (loss: number): number => (energy > 0 ? Math.sqrt(loss / energy) : 0);
  let best = start;
  const at = (parameters: HeadParameters): Normal =>
    withPrior(normalEquations(blocks, softcap, parameters), parameters, PRIOR * energy);
  let normal = at(best);
  const startError = relative(normal.loss);
  let damping = 1e-3;
  let iterations = 0;
  while (iterations < MAX_ITERATIONS && energy > 0) {
    iterations++;
    const step = solve(normal, damping);
    const next = { bias: best.bias + step[0]!, scale: best.scale + step[1]!, gain: best.gain + step[2]! };
    const tried = at(next);
    if (tried.loss < normal.loss) {
      const settled = normal.loss - tried.loss < CONVERGED * normal.loss;
      best = next;
      normal = tried;
      damping = Math.max(damping / 5, 1e-9);
      if (settled) break;
    } else {
      damping *= 8;
      if (damping > 1e8) break;
    }
  }
  return { ...best, error: headError(blocks, softcap, best), startError, iterations };
}

/** |y - o| / |o| of parameters that were not fitted here. */
export function headError(blocks: readonly HeadRows[], softcap: number, parameters: HeadParameters): number {
  const energy = blocks.reduce((sum, { target }) => sum + target.reduce((s, x) => s + x * x, 0), 0);
  return energy > 0 ? Math.sqrt(normalEquations(blocks, softcap, parameters).loss / energy) : 0;
}

function withPrior({ loss, hessian, gradient }: Normal, parameters: HeadParameters, weight: number): Normal {
  const distance = [parameters.bias, parameters.scale - 1, parameters.gain - 1] as const;
  const diagonal = [0, 3, 5] as const;
  distance.forEach((value, i) => {
    hessian[diagonal[i]!]! += weight;
    gradient[i]! += weight * value;
  });
  return { loss: loss + weight * distance.reduce((sum, value) => sum + value * value, 0), hessian, gradient };
}

function normalEquations(
  blocks: readonly HeadRows[],
  softcap: number,
  { bias, scale, gain }: HeadParameters,
): Normal {
  const hessian = new Float64Array(6);
  const gradient = new Float64Array(3);
  let loss = 0;
  for (const { rows, keys, valueSize, scores, addends, rowBias, values, target } of blocks) {
    const y = new Float64Array(valueSize);
    const yBias = new Float64Array(valueSize);
    const yScale = new Float64Array(valueSize);
    for (let row = 0; row < rows; row++) {
      y.fill(0);
      yBias.fill(0);
      yScale.fill(0);
      const offset = bias + rowBias[row]!;
      for (let key = 0; key < keys; key++) {
        const score = scores[row * keys + key]!;
        let logit = scale * score;
        let slope = score;
        if (softcap > 0) {
          const squashed = Math.tanh(logit / softcap);
          logit = softcap * squashed;
          slope *= 1 - squashed * squashed;
        }
        if (addends) logit += addends[row * keys + key]!;
        const weight = 1 / (1 + Math.exp(-(logit + offset)));
        if (weight < 1e-12) continue;
        const byBias = weight * (1 - weight);
        const byScale = byBias * slope;
        for (let d = 0, at = key * valueSize; d < valueSize; d++, at++) {
          const value = values[at]!;
          y[d] = y[d]! + weight * value;
          yBias[d] = yBias[d]! + byBias * value;
          yScale[d] = yScale[d]! + byScale * value;
        }
      }
      for (let d = 0; d < valueSize; d++) {
        const jb = gain * yBias[d]!;
        const jt = gain * yScale[d]!;
        const jg = y[d]!;
        const error = gain * jg - target[row * valueSize + d]!;
        loss += error * error;
        hessian[0]! += jb * jb;
        hessian[1]! += jb * jt;
        hessian[2]! += jb * jg;
        hessian[3]! += jt * jt;
        hessian[4]! += jt * jg;
        hessian[5]! += jg * jg;
        gradient[0]! += jb * error;
        gradient[1]! += jt * error;
        gradient[2]! += jg * error;
      }
    }
  }
  return { loss, hessian, gradient };
}

/** Solves (H + damping * diag H) x = -gradient for three unknowns. */
function solve({ hessian, gradient }: Normal, damping: number): [number, number, number] {
  const [bb, bt, bg, tt, tg, gg] = hessian as unknown as [number, number, number, number, number, number];
  const floor = 1e-12 * (bb + tt + gg) + 1e-300;
  const a = bb * (1 + damping) + floor;
  const d = tt * (1 + damping) + floor;
  const f = gg * (1 + damping) + floor;
  const cofactors = [d * f - tg * tg, bg * tg - bt * f, bt * tg - bg * d] as const;
  const determinant = a * cofactors[0] + bt * cofactors[1] + bg * cofactors[2];
  const [x, y, z] = gradient as unknown as [number, number, number];
  return [
    -(cofactors[0] * x + cofactors[1] * y + cofactors[2] * z) / determinant,
    -(cofactors[1] * x + (a * f - bg * bg) * y + (bt * bg - a * tg) * z) / determinant,
    -(cofactors[2] * x + (bt * bg - a * tg) * y + (a * d - bt * bt) * z) / determinant,
  ];
}
