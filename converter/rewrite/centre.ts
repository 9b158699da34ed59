/**
 * Moves all scores of a row by one number, which softmax does not see, so that their mean over the keys of the row is 0.
 * The largest score of a row is then never below 0, and one bias a head suits rows that lay far apart.
 */
import { DataType } from '../onnx/tensor.js';
import type { Emitter } from './emitter.js';

/** Keys less their mean over positions: right where every row sees all keys. */
export function keysLessMean(keys: string, rank: 3 | 4, emitter: Emitter): string {
  return emitter.apply('Sub', [keys, emitter.reduce('ReduceMean', keys, rank - 2)]);
}

export interface CentredCall {
  readonly query: string;
  readonly key: string;
  readonly rank: 3 | 4;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  /** Number of TensorProto.DataType. */
  readonly type: number;
  readonly scale: number;
}

export interface RowNumbers {
  /** Per head and channel: multiplies the query. */
  readonly rowQuery?: readonly (readonly number[])[] | undefined;
  /** Per head: multiplies the mean of the row's scaled scores over keys 0 to i. */
  readonly rowMean?: readonly number[] | undefined;
}

/** A number for each row, to be added to its scores: `[B, heads, N, 1]` of the call's type. */
export function centredRow(call: CentredCall, { rowQuery, rowMean }: RowNumbers, emitter: Emitter): string {
  const { rank, heads, type, scale } = call;
  const channel = (values: readonly number[][]): string =>
    emitter.tensor(DataType.float, [1, heads, 1, call.headSize], values.flat());
  const factors = rowQuery && channel(rowQuery.map((row) => [...row]));
  const means =
    rowMean &&
    emitter.apply('Mul', [
      runningMeans(call, emitter),
      rowMean.every((value) => value === rowMean[0])
        ? emitter.scalar(DataType.float, scale * rowMean[0]!)
        : emitter.tensor(
            DataType.float,
            [1, heads, 1, 1],
            rowMean.map((value) => scale * value),
          ),
    ]);
  const multiplier = means && factors ? emitter.apply('Add', [means, factors]) : (means ?? factors)!;
  const queries = headsFirst(call.query, heads, { rank, type }, emitter);
  const numbers = emitter.reduce('ReduceSum', emitter.apply('Mul', [queries, multiplier]), 3);
  return type === DataType.float ? numbers : emitter.apply('Cast', [numbers], { to: type });
}

/** Means of the keys 0 to i, `[B, heads, N, D]` in float. */
function runningMeans({ key, rank, type, heads, kvHeads }: CentredCall, emitter: Emitter): string {
  const integer = (value: number): string => emitter.tensor(DataType.int64, [], [value]);
  const keys = headsFirst(key, kvHeads, { rank, type }, emitter);
  const sums = emitter.apply('CumSum', [keys, integer(2)]);
  const length = emitter.apply('Gather', [emitter.apply('Shape', [keys]), integer(2)]);
  const end = emitter.apply('Add', [length, integer(1)]);
  const positions = emitter.apply('Range', [integer(1), end, integer(1)]);
  const counts = emitter.apply('Reshape', [
    emitter.apply('Cast', [positions], { to: DataType.float }),
    emitter.ints([-1, 1]),
  ]);
  const means = emitter.apply('Div', [sums, counts]);
  if (heads === kvHeads) return means;
  const shared = Array.from({ length: heads }, (_, head) => Math.floor(head / (heads / kvHeads)));
  return emitter.apply('Gather', [means, emitter.ints(shared)], { axis: 1 });
}

/** A call's input as `[B, heads, N, D]` in float. */
export function headsFirst(
  value: string,
  count: number,
  { rank, type }: Pick<CentredCall, 'rank' | 'type'>,
  emitter: Emitter,
): string {
  const asFloat = type === DataType.float ? value : emitter.apply('Cast', [value], { to: DataType.float });
  if (rank === 4) return asFloat;
  const apart = emitter.apply('Reshape', [asFloat, emitter.ints([0, 0, count, -1])]);
  return emitter.apply('Transpose', [apart], { perm: [0, 2, 1, 3] });
}
