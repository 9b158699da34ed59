/** Single attention calls: our kernels against ONNX Runtime's, bandwidth of decoding, and long sequences. */

import { numbersOf, sampledError, TOLERANCE } from './accuracy.js';
import { KernelBench } from './kernels.js';
import type { PeerKind } from './models.js';
import { peerContender, peerResult, type Provider } from './peers.js';
import { type Contender, race } from './race.js';
import { type BenchShape, flopsOf, keyValueBytes, nameOf } from './shapes.js';

export interface PrefillRow {
  readonly kind: 'prefill';
  readonly shape: string;
  readonly queryLength: number;
  /** Milliseconds of one attention. */
  readonly ours: number;
  readonly tflops: number;
  /** Milliseconds of ONNX Runtime's MultiHeadAttention; `null` where its result is wrong here or it failed. */
  readonly ort: number | null;
  /** Of that over ours. */
  readonly ratio: number | null;
  readonly function: number | null;
  readonly functionRatio: number | null;
  readonly remarks: readonly string[];
}

export interface PrefillSettings {
  readonly peers: Provider;
  readonly isSoftware: boolean;
  readonly rounds: number;
}

export async function prefillRow(
  bench: KernelBench,
  shape: BenchShape,
  { peers, isSoftware, rounds }: PrefillSettings,
): Promise<PrefillRow> {
  const lengths = isSoftware ? ([1, 2] as const) : ([2, 22] as const);
  const ours = bench.prepare(shape);
  await ours.run(1);
  const found = numbersOf(new Uint8Array(await ours.result()), shape);
  const ownError = sampledError(found, shape, 'sigmoid');
  if (!(ownError < TOLERANCE[shape.type]))
    throw new Error(`our result for ${nameOf(shape)} is wrong here: error ${ownError}`);
  const remarks: string[] = [];
  const contenders: { kind: PeerKind; contender: Contender & { release(): Promise<void> } }[] = [];
  for (const kind of ['MultiHeadAttention', 'function'] as const)
    try {
      const values = numbersOf(await peerResult(shape, kind, peers), shape);
      const error = sampledError(values, shape, kind === 'function' ? 'sigmoid' : 'softmax');
      if (!(error < TOLERANCE[shape.type]))
        remarks.push(`${kind} is wrong here: error ${error.toExponential(1)}`);
      else {
        const own = kind === 'function' && !isSoftware ? ([1, 5] as const) : lengths;
        contenders.push({ kind, contender: await peerContender(shape, kind, peers, own) });
      }
    } catch (error) {
      remarks.push(`${kind} failed: ${String(error).split('\n')[0]}`);
    }
  if (!isSoftware) await bench.heat();
  const [mine, ...theirs] = await race(
    [{ run: ours.run, lengths }, ...contenders.map(({ contender }) => contender)],
    rounds,
  );
  for (const { contender } of contenders) await contender.release();
  ours.free();
  const of = (kind: PeerKind): { milliseconds: number; ratio: number } | undefined => {
    const index = contenders.findIndex((candidate) => candidate.kind === kind);
    return index < 0 ? undefined : theirs[index];
  };
  return {
    kind: 'prefill',
    shape: nameOf(shape),
    queryLength: shape.queryLength,
    ours: mine!.milliseconds,
    tflops: flopsOf(shape) / mine!.milliseconds / 1e9,
    ort: of('MultiHeadAttention')?.milliseconds ?? null,
    ratio: of('MultiHeadAttention')?.ratio ?? null,
    function: of('function')?.milliseconds ?? null,
    functionRatio: of('function')?.ratio ?? null,
    remarks,
  };
}

export interface DecodeRow {
  readonly kind: 'decode';
  readonly shape: string;
  readonly ours: number;
  /** Bytes a second of K and V, in GB. */
  readonly bandwidth: number;
  /** What a plain copy reads and writes a second, in GB. */
  readonly copyBandwidth: number;
  /** Of the copy's bandwidth, as a share. */
  readonly share: number;
}

const COPIED_BYTES = 2 ** 28;

export async function decodeRow(bench: KernelBench, shape: BenchShape, rounds: number): Promise<DecodeRow> {
  const ours = bench.prepare(shape);
  const copy = bench.copy(COPIED_BYTES);
  await bench.heat();
  const [mine, plain] = await race([{ run: ours.run, lengths: [4, 44] }, copy], rounds);
  ours.free();
  copy.free();
  const bytes = keyValueBytes(shape);
  return {
    kind: 'decode',
    shape: nameOf(shape),
    ours: mine!.milliseconds,
    bandwidth: bytes / mine!.milliseconds / 1e6,
    copyBandwidth: (2 * COPIED_BYTES) / plain!.milliseconds / 1e6,
    share: (bytes / (2 * COPIED_BYTES)) * plain!.ratio,
  };
}

export interface LongRow {
  readonly kind: 'long sequence';
  readonly shape: string;
  readonly ours: number;
  readonly tflops: number;
}

export async function longRow(bench: KernelBench, shape: BenchShape, rounds: number): Promise<LongRow> {
  const ours = bench.prepare(shape);
  await bench.heat();
  const [mine] = await race([{ run: ours.run, lengths: [1, 3] }], rounds);
  const error = sampledError(numbersOf(new Uint8Array(await ours.result()), shape), shape, 'sigmoid');
  ours.free();
  if (!(error < TOLERANCE[shape.type]))
    throw new Error(`our result for ${nameOf(shape)} is wrong here: error ${error}`);
  return {
    kind: 'long sequence',
    shape: nameOf(shape),
    ours: mine!.milliseconds,
    tflops: flopsOf(shape) / mine!.milliseconds / 1e9,
  };
}
