/**
 * Cuts one attention call into dispatches whose bindings fit the device: ranges of batch entries, kv heads, query rows and,
 * since partial sums of sigmoid attention are simply added, of keys.
 */

/** A tensor as rows: element (b, h, n, d) lies at b * batch + h * head + n * row + d. */
export interface RowTensor {
  readonly batch: number;
  readonly head: number;
  readonly row: number;
  /** Elements of a row. */
  readonly size: number;
  readonly bytesPerElement: number;
}

export interface Range {
  readonly begin: number;
  readonly end: number;
}

export const lengthOf = ({ begin, end }: Range): number => end - begin;

/** Part of a call: all dispatches of one slice write the same rows of Y and together see all keys. */
export interface Slice {
  readonly batch: Range;
  readonly kvHeads: Range;
  /** Of the query heads of each kv head. */
  readonly group: Range;
  readonly rows: Range;
  readonly keyChunks: readonly Range[];
}

/** A tensor that a slice binds in part. */
export interface SlicedTensor {
  readonly tensor: RowTensor;
  readonly heads: 'query' | 'kv';
  /** What its rows are: query rows, keys, keys of the past, or keys after the past numbered from 0. */
  readonly along: 'rows' | 'keys' | 'past' | 'fresh';
}

export interface SlicedCall {
  readonly batch: number;
  readonly kvHeads: number;
  /** Query heads of a kv head. */
  readonly group: number;
  readonly queryLength: number;
  readonly keyLength: number;
  readonly pastLength: number;
  readonly tensors: readonly SlicedTensor[];
  /** Bytes of the f32 partial sums of one row, for one split of the keys. */
  readonly partialRowBytes: number;
  /** Splits of the keys of a dispatch that the kernel wants for the sake of parallelism. */
  readonly splits: number;
}

export interface BindingLimits {
  readonly maxBytes: number;
  /** Of the offset of a binding; the bound range grows by up to this. */
  readonly alignment: number;
}

/** The elements [first, end) that hold rows `n` of the heads and batch entries; empty for no rows. */
export function elementRange(tensor: RowTensor, b: Range, h: Range, n: Range): Range {
  if (lengthOf(b) <= 0 || lengthOf(h) <= 0 || lengthOf(n) <= 0) return { begin: 0, end: 0 };
  const at = (pick: (range: Range) => number): number =>
    pick(b) * tensor.batch + pick(h) * tensor.head + pick(n) * tensor.row;
  return { begin: at(({ begin }) => begin), end: at(({ end }) => end - 1) + tensor.size };
}

/** The query heads of a slice; of all `groupSize` of a kv head unless it has a single kv head. */
export const queryHeadsOf = ({ kvHeads, group }: Slice, groupSize: number): Range => ({
  begin: kvHeads.begin * groupSize + group.begin,
  end: (kvHeads.end - 1) * groupSize + group.end,
});

/** The part of a range of keys that lies in the past, and the part in K and V with their own numbering. */
export function partsOfKeys(keys: Range, pastLength: number): { past: Range; fresh: Range } {
  return {
    past: { begin: Math.min(keys.begin, pastLength), end: Math.min(keys.end, pastLength) },
    fresh: { begin: Math.max(keys.begin - pastLength, 0), end: Math.max(keys.end - pastLength, 0) },
  };
}

/** A cut must bring a binding that is too large to this part of its size at least, to be worth its dispatch. */
const WORTHWHILE = 0.9;

/** Slices in an order of no meaning; throws when not even one row and one key fit. */
export function sliceCall(call: SlicedCall, limits: BindingLimits): Slice[] {
  const whole: Slice = {
    batch: { begin: 0, end: call.batch },
    kvHeads: { begin: 0, end: call.kvHeads },
    group: { begin: 0, end: call.group },
    rows: { begin: 0, end: call.queryLength },
    keyChunks: [{ begin: 0, end: call.keyLength }],
  };
  const allowed = limits.maxBytes - limits.alignment;
  const done: Slice[] = [];
  const open = [whole];
  for (let slice = open.pop(); slice !== undefined; slice = open.pop()) {
    const spans = boundBytes(call, slice);
    if (spans.every((bytes) => bytes <= allowed)) {
      done.push(slice);
      continue;
    }
    const cut = CUTS.map((halve) => halve(slice)).find((parts) => {
      const smaller = parts === undefined ? spans : boundBytes(call, parts[0]!);
      return spans.some((bytes, index) => bytes > allowed && smaller[index]! <= WORTHWHILE * bytes);
    });
    if (cut === undefined)
      throw new RangeError(
        `attention binds ${Math.max(...spans)} bytes at least; the device can bind ${allowed} at once`,
      );
    open.push(...cut);
  }
  return done;
}

type Cut = (slice: Slice) => Slice[] | undefined;

function halves(range: Range): [Range, Range] | undefined {
  const { begin, end } = range;
  if (end - begin < 2) return undefined;
  const middle = begin + Math.ceil((end - begin) / 2);
  return [
    { begin, end: middle },
    { begin: middle, end },
  ];
}

/** In order of preference: cutting keys costs partial sums, cutting rows reads the keys again. */
const CUTS: readonly Cut[] = [
  (slice) => halves(slice.batch)?.map((batch) => ({ ...slice, batch })),
  (slice) => halves(slice.kvHeads)?.map((kvHeads) => ({ ...slice, kvHeads })),
  (slice) =>
    lengthOf(slice.kvHeads) > 1 ? undefined : halves(slice.group)?.map((group) => ({ ...slice, group })),
  (slice) => halves(slice.rows)?.map((rows) => ({ ...slice, rows })),
  (slice) => {
    const chunks = slice.keyChunks.map(halves);
    return chunks.some((pair) => pair === undefined)
      ? undefined
      : [{ ...slice, keyChunks: chunks.flatMap((pair) => pair!) }];
  },
];

/** The bytes that each tensor, and last the partial sums, take in the largest dispatch of a slice. */
function boundBytes(call: SlicedCall, slice: Slice): number[] {
  const { batch, kvHeads, rows, keyChunks } = slice;
  const heads = queryHeadsOf(slice, call.group);
  const splits = keyChunks.length * call.splits;
  const partialRows = lengthOf(batch) * lengthOf(heads) * lengthOf(rows);
  const spans = call.tensors.map(({ tensor, heads: which, along }) => {
    const h = which === 'query' ? heads : kvHeads;
    const ranges =
      along === 'rows'
        ? [rows]
        : keyChunks.map((keys) => (along === 'keys' ? keys : partsOfKeys(keys, call.pastLength)[along]));
    const elements = ranges.map((n) => lengthOf(elementRange(tensor, batch, h, n)));
    return Math.max(...elements) * tensor.bytesPerElement;
  });
  return [...spans, splits > 1 ? splits * partialRows * call.partialRowBytes : 0];
}
