/**
 * What softmax does not see and sigmoid needs: a number added to all scores of a row, and a vector added to all values and
 * taken from the output again. A number per row that is linear in the query is a vector added to all keys, so where nothing
 * else reads the keys it costs one Add; other numbers become a mask of one number a row. All of it is linear in the length.
 */
import type { SiteParameters } from '../conversion.js';
import { DataType } from '../onnx/tensor.js';
import { centredRow, headsFirst, keysLessMean, type CentredCall } from './centre.js';
import type { Emitter } from './emitter.js';

/** Key of the node's metadata under which a conversion writes the terms of its site down, as JSON. */
export const TERMS_KEY = 'ort.sigmoid.terms';

/** The terms among a site's parameters as metadata of its node. */
export function termsMetadata(parameters: SiteParameters): Record<string, string> {
  const { centreScores, centreValues, rowQuery, rowMoments, valueShift, outputShift } = parameters;
  const terms = { centreScores, centreValues, rowQuery, rowMoments, valueShift, outputShift };
  if (Object.values(terms).every((value) => value === undefined || value === false)) return {};
  const single = (_: string, value: unknown): unknown =>
    typeof value === 'number' ? Math.fround(value) : value;
  return { [TERMS_KEY]: JSON.stringify(terms, single) };
}

/** The operator's call as far as the terms need it. */
export interface TermCall extends CentredCall {
  /** Per head: what head_scale multiplies; `null`: nothing. */
  readonly headScale: readonly number[] | null;
  /** Row i sees keys up to its own. */
  readonly isCausal: boolean;
  /** Keys may be changed: no past keeps them, no soft cap bends their scores, no query heads share them. */
  readonly ownsKeys: boolean;
  /** Moments may be taken: no past and no padding. */
  readonly hasMoments: boolean;
}

export interface RowTerms {
  /** Keys that carry a part of the terms. */
  readonly keys: string | null;
  /** `[B, heads, N, 1]` of the call's type, to be added to the scores. */
  readonly mask: string | null;
}

export function rowTerms(
  call: TermCall,
  { rowQuery, rowMoments }: SiteParameters,
  emitter: Emitter,
): RowTerms {
  const moments = call.hasMoments && (call.isCausal || call.ownsKeys) ? rowMoments : undefined;
  const rowMean = moments?.map(([mean = 0]) => mean);
  if (!rowQuery && !moments) return { keys: null, mask: null };
  if (!call.ownsKeys || (call.isCausal && moments)) {
    return { keys: null, mask: centredRow(call, { rowQuery, rowMean }, emitter) };
  }
  const spreads = moments?.some(([, variance = 0, deviation = 0]) => variance !== 0 || deviation !== 0);
  return {
    keys: shiftedKeys(call, { rowQuery, rowMean }, emitter),
    mask: spreads ? spreadOfRows(call, moments!, emitter) : null,
  };
}

function shiftedKeys(
  call: TermCall,
  { rowQuery, rowMean }: { rowQuery: SiteParameters['rowQuery']; rowMean: readonly number[] | undefined },
  emitter: Emitter,
): string {
  const temperature = (head: number): number => call.headScale?.[head] ?? 1;
  const shift =
    rowQuery &&
    perChannel(
      call,
      rowQuery.map((row, head) => row.map((value) => value / (call.scale * temperature(head)))),
      emitter,
    );
  const multiples = rowMean?.map((value, head) =>
    new Array<number>(call.headSize).fill(value / temperature(head)),
  );
  const mean =
    multiples &&
    emitter.apply('Mul', [
      emitter.reduce('ReduceMean', call.key, call.rank - 2),
      perChannel(call, multiples, emitter),
    ]);
  const term = mean && shift ? emitter.apply('Add', [mean, shift]) : (mean ?? shift)!;
  return emitter.apply('Add', [call.key, term]);
}

/**
 * Multiples of the variance and the standard deviation of each row's scaled scores: with C the covariance of the keys
 * over their positions, the variance is scale^2 q'Cq.
 */
function spreadOfRows(call: TermCall, moments: readonly (readonly number[])[], emitter: Emitter): string {
  const { heads, type, scale } = call;
  const perHead = (place: number): string =>
    emitter.tensor(
      DataType.float,
      [1, heads, 1, 1],
      moments.map((own) => own[place] ?? 0),
    );
  const keys = keysLessMean(headsFirst(call.key, heads, call, emitter), 4, emitter);
  const positions = emitter.apply('Gather', [
    emitter.apply('Shape', [keys]),
    emitter.tensor(DataType.int64, [], [2]),
  ]);
  const count = emitter.apply('Cast', [positions], { to: DataType.float });
  const products = emitter.apply('MatMul', [
    emitter.apply('Transpose', [keys], { perm: [0, 1, 3, 2] }),
    keys,
  ]);
  const covariance = emitter.apply('Div', [products, count]);
  const queries = emitter.apply('Mul', [
    headsFirst(call.query, heads, call, emitter),
    emitter.scalar(DataType.float, scale),
  ]);
  const along = emitter.apply('Mul', [emitter.apply('MatMul', [queries, covariance]), queries]);
  const variance = emitter.apply('Relu', [emitter.reduce('ReduceSum', along, 3)]);
  const numbers = emitter.apply('Add', [
    emitter.apply('Mul', [variance, perHead(1)]),
    emitter.apply('Mul', [emitter.apply('Sqrt', [variance]), perHead(2)]),
  ]);
  return type === DataType.float ? numbers : emitter.apply('Cast', [numbers], { to: type });
}

/** One number per head and channel in the layout of a call's inputs. */
export function perChannel(
  { rank, type }: Pick<TermCall, 'rank' | 'type'>,
  values: readonly (readonly number[])[],
  emitter: Emitter,
): string {
  const [heads, size] = [values.length, values[0]!.length];
  const dims = rank === 4 ? [1, heads, 1, size] : [1, 1, heads * size];
  return emitter.tensor(type, dims, values.flat());
}
