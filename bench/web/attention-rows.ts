/** Single attention calls: our kernels against ONNX Runtime's, bandwidth of decoding, and long sequences. */

import { numbersOf, sampledError, TOLERANCE } from './accuracy.js';
import { ARITHMETIC_FLOPS, KernelBench } from './kernels.js';
import type { PeerKind } from './models.js';
import { peerContender, peerResult, type Provider } from './peers.js';
import { type Contender, type Race, type Result, steadyRace } from './race.js';
import { type BenchShape, flopsOf, keyValueBytes, nameOf } from './shapes.js';

/** How steady the machine was during a row. */
interface Steadiness {
  /** Between the quartiles of the rounds, relative to the median: of the contender where it is widest. */
  readonly spread: number;
  /** TFLOP/s of a loop of multiply-adds in the same rounds: it follows the clock of the GPU. `null` on software. */
  readonly clock: number | null;
}

export interface PrefillRow extends Steadiness {
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
  /** Milliseconds of our kernel with matrix instructions, where there are such. */
  readonly matrices: number | null;
  /** Of MultiHeadAttention over that. */
  readonly matricesRatio: number | null;
  readonly remarks: readonly string[];
}

export interface PrefillSettings {
  readonly peers: Provider;
  readonly isSoftware: boolean;
  readonly rounds: number;
  /** On a device with matrix instructions. */
  readonly matrices?: KernelBench | undefined;
}

/** The portable function keeps several times its scores: more than this, and freeing them disturbs the others. */
const MAX_FUNCTION_SCORE_BYTES = 2 ** 28;

type Named = 'ours' | 'matrices' | PeerKind | 'clock';
type Entry = Contender & { readonly name: Named; readonly free: () => void | Promise<void> };

export async function prefillRow(
  bench: KernelBench,
  shape: BenchShape,
  { peers, isSoftware, rounds, matrices }: PrefillSettings,
): Promise<PrefillRow> {
  const isShort = shape.queryLength <= 512;
  const own = isSoftware ? ([1, 2] as const) : isShort ? ([2, 202] as const) : ([2, 22] as const);
  const theirs = isSoftware ? ([1, 2] as const) : isShort ? ([2, 42] as const) : ([2, 22] as const);
  const entries: Entry[] = [await ownEntry('ours', bench, shape, own)];
  const remarks: string[] = [];
  const attempt = async (name: Named, enter: () => Promise<Entry>): Promise<void> => {
    try {
      entries.push(await enter());
    } catch (error) {
      remarks.push(`${name}: ${String(error).split('\n')[0]}`);
    }
  };
  const scoreBytes = shape.heads * shape.queryLength * shape.keyLength * 4;
  const kinds: readonly PeerKind[] =
    scoreBytes > MAX_FUNCTION_SCORE_BYTES ? ['MultiHeadAttention'] : ['MultiHeadAttention', 'function'];
  for (const kind of kinds)
    await attempt(kind, async () => {
      const values = numbersOf(await peerResult(shape, kind, peers), shape);
      requireRight(sampledError(values, shape, kind === 'function' ? 'sigmoid' : 'softmax'), shape);
      const lengths = kind === 'function' && !isSoftware ? ([1, 5] as const) : theirs;
      const contender = await peerContender(shape, kind, peers, lengths);
      return { ...contender, name: kind, free: () => contender.release() };
    });
  if (matrices !== undefined && shape.type === 'f16')
    await attempt('matrices', () => ownEntry('matrices', matrices, shape, own));
  if (!isSoftware) entries.push({ ...bench.arithmetic(), name: 'clock' });
  const race = await steadyRace(entries, rounds, isSoftware ? undefined : () => bench.heat());
  for (const { free } of entries) await free();
  const of = (name: Named): Result | undefined => {
    const index = entries.findIndex((entry) => entry.name === name);
    return index < 0 ? undefined : race.results[index];
  };
  const ours = of('ours')!;
  const [ort, body, fast] = [of('MultiHeadAttention'), of('function'), of('matrices')];
  return {
    kind: 'prefill',
    shape: nameOf(shape),
    queryLength: shape.queryLength,
    ours: ours.milliseconds,
    tflops: flopsOf(shape) / ours.milliseconds / 1e9,
    ort: ort?.milliseconds ?? null,
    ratio: ort?.ratio ?? null,
    function: body?.milliseconds ?? null,
    functionRatio: body?.ratio ?? null,
    matrices: fast?.milliseconds ?? null,
    matricesRatio: fast === undefined || ort === undefined ? null : ort.ratio / fast.ratio,
    remarks,
    spread: race.spread,
    clock: clockOf(of('clock')),
  };
}

/** Our kernels, checked. */
async function ownEntry(
  name: 'ours' | 'matrices',
  bench: KernelBench,
  shape: BenchShape,
  lengths: readonly [number, number],
  sets = 1,
): Promise<Entry & { readonly runOnGpu: Contender['run'] | null }> {
  const prepared = bench.prepare(shape, sets);
  await prepared.run(1);
  const found = numbersOf(new Uint8Array(await prepared.result()), shape);
  requireRight(sampledError(found, shape, 'sigmoid'), shape);
  return { ...prepared, name, lengths };
}

function requireRight(error: number, shape: BenchShape): void {
  if (!(error < TOLERANCE[shape.type]))
    throw new Error(`the result for ${nameOf(shape)} is wrong here: error ${error.toExponential(1)}`);
}

function clockOf(arithmetic: Result | undefined): number | null {
  return arithmetic === undefined ? null : ARITHMETIC_FLOPS / arithmetic.milliseconds / 1e9;
}

export interface DecodeRow extends Steadiness {
  readonly kind: 'decode';
  readonly shape: string;
  /** Milliseconds of a call in a chain of calls, what recording it costs included. */
  readonly ours: number;
  /** Milliseconds of a call on the GPU, from timestamps around a chain of calls. */
  readonly gpu: number;
  /** Bytes of K and V that it reads a second, in GB. */
  readonly bandwidth: number;
  /**
   * What a plain copy of as many bytes reads and writes a second, likewise by timestamps, in GB; like the call, each is a pass of
   * its own in which a small dispatch waits for the large one.
   */
  readonly copyBandwidth: number;
  /** Of the copy's bandwidth, as a share. */
  readonly share: number;
  /** Of the bandwidth of the same copies without the small dispatches. */
  readonly shareOfBareCopy: number;
}

/** Calls and copies take sets of buffers in turn that are as large together, so that no cache serves them. */
const ROTATED_BYTES = 4e8;

/** Needs a device with timestamps. */
export async function decodeRow(bench: KernelBench, shape: BenchShape, rounds: number): Promise<DecodeRow> {
  const bytes = keyValueBytes(shape);
  const sets = Math.ceil(ROTATED_BYTES / bytes);
  const ours = await ownEntry('ours', bench, shape, [4, 104], sets);
  const [copy, bare] = [bench.copy(bytes, sets, true), bench.copy(bytes, sets, false)];
  if (ours.runOnGpu === null || copy.runOnGpu === null || bare.runOnGpu === null)
    throw new Error('the device has no timestamp-query, which decoding is measured with');
  const race = await raceWithClock(
    bench,
    [{ ...ours, run: ours.runOnGpu }, { ...copy, run: copy.runOnGpu }, { ...bare, run: bare.runOnGpu }, ours],
    rounds,
  );
  await ours.free();
  copy.free();
  bare.free();
  const [gpu, plain, alone, chained, clock] = race.results;
  return {
    kind: 'decode',
    shape: nameOf(shape),
    ours: chained!.milliseconds,
    gpu: gpu!.milliseconds,
    bandwidth: bytes / gpu!.milliseconds / 1e6,
    copyBandwidth: bytes / plain!.milliseconds / 1e6,
    share: plain!.ratio,
    shareOfBareCopy: alone!.ratio,
    spread: race.spread,
    clock: clockOf(clock),
  };
}

export interface LongRow extends Steadiness {
  readonly kind: 'long sequence';
  readonly shape: string;
  readonly ours: number;
  readonly tflops: number;
  /** GPU memory that our kernels allocate beside Q, K, V and Y; the scores would take `scoreBytes`. */
  readonly extraBytes: number;
  readonly scoreBytes: number;
}

export async function longRow(bench: KernelBench, shape: BenchShape, rounds: number): Promise<LongRow> {
  const before = bench.scratchBytes;
  const ours = await ownEntry('ours', bench, shape, [1, 3]);
  const race = await raceWithClock(bench, [ours], rounds);
  await ours.free();
  const { milliseconds } = race.results[0]!;
  return {
    kind: 'long sequence',
    shape: nameOf(shape),
    ours: milliseconds,
    tflops: flopsOf(shape) / milliseconds / 1e9,
    extraBytes: bench.scratchBytes - before,
    scoreBytes: shape.heads * shape.queryLength * shape.keyLength * (shape.type === 'f32' ? 4 : 2),
    spread: race.spread,
    clock: clockOf(race.results[1]),
  };
}

/** With the loop of multiply-adds as the last contender. */
async function raceWithClock(
  bench: KernelBench,
  contenders: readonly Contender[],
  rounds: number,
): Promise<Race> {
  const arithmetic = bench.arithmetic();
  const race = await steadyRace([...contenders, arithmetic], rounds, () => bench.heat());
  arithmetic.free();
  return race;
}
