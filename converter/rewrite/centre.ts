/**
 * Moves all scores of a row by one number, which softmax does not see, so that their mean over the keys of the row is 0.
 * The largest score of a row is then never below 0, and one bias a head suits rows that lay far apart.
 */
import { DataType } from '../onnx/tensor.js';
import type { Emitter } from './emitter.js';

/** Keys less their mean over positions: right where every row sees all keys. */
export function centredKeys(keys: string, rank: 3 | 4, emitter: Emitter): string {
  return emitter.apply('Sub', [keys, emitter.reduce('ReduceMean', keys, rank - 2)]);
}

export interface CausalCentre {
  readonly query: string;
  readonly key: string;
  readonly rank: 3 | 4;
  readonly heads: number;
  readonly kvHeads: number;
  /** Number of TensorProto.DataType. */
  readonly type: number;
  readonly scale: number;
}

/** What to add to the scores where row i sees keys 0 to i: minus their mean, `[B, heads, N, 1]` of the call's type. */
export function causalCentre(call: CausalCentre, emitter: Emitter): string {
  const { rank, heads, kvHeads, type, scale } = call;
  const asFloat = (value: string): string =>
    type === DataType.float ? value : emitter.apply('Cast', [value], { to: DataType.float });
  const headsFirst = (value: string, count: number): string => {
    if (rank === 4) return asFloat(value);
    const apart = emitter.apply('Reshape', [asFloat(value), emitter.ints([0, 0, count, -1])]);
    return emitter.apply('Transpose', [apart], { perm: [0, 2, 1, 3] });
  };
  const integer = (value: number): string => emitter.tensor(DataType.int64, [], [value]);
  const queries = headsFirst(call.query, heads);
  const keys = headsFirst(call.key, kvHeads);
  const sums = emitter.apply('CumSum', [keys, integer(2)]);
  const length = emitter.apply('Gather', [emitter.apply('Shape', [keys]), integer(2)]);
  const end = emitter.apply('Add', [length, integer(1)]);
  const positions = emitter.apply('Range', [integer(1), end, integer(1)]);
  const counts = emitter.apply('Reshape', [
    emitter.apply('Cast', [positions], { to: DataType.float }),
    emitter.ints([-1, 1]),
  ]);
  let means = emitter.apply('Div', [sums, counts]);
  if (heads !== kvHeads) {
    const shared = Array.from({ length: heads }, (_, head) => Math.floor(head / (heads / kvHeads)));
    means = emitter.apply('Gather', [means, emitter.ints(shared)], { axis: 1 });
  }
  const products = emitter.reduce('ReduceSum', emitter.apply('Mul', [queries, means]), 3);
  const centre = emitter.apply('Mul', [products, emitter.scalar(DataType.float, -scale)]);
  return type === DataType.float ? centre : emitter.apply('Cast', [centre], { to: type });
}
