/**
 * Runs a cut model by giving the GPU what an earlier run with the same shapes gave it, on other data. The runtime, whose own
 * work for each node takes longer than the GPU does for short sequences, is only asked for the pieces that stayed live.
 */

import type { InferenceSession, Tensor } from 'onnxruntime-common';
import { BufferArena } from './buffers.js';
import type { LivePiece, Value } from './commands.js';
import type { DeviceContext } from './device-context.js';
import { download, pooledTensor } from './gpu-tensors.js';
import { ReplayProgram } from './replay-program.js';
import type { Fixed, RunRecording } from './run-recording.js';
import {
  byteLengthOf,
  type Feeds,
  type Fetches,
  type OrtModule,
  type Results,
  tensorFromBytes,
} from './runtime.js';
import type { LoadedModel } from './split-session.js';
import { bytesOf, upload } from './upload.js';

const COPY_SRC = 0x04; // GPUBufferUsage.COPY_SRC
const COPY_DST = 0x08; // GPUBufferUsage.COPY_DST

export class Replay {
  readonly #ort: OrtModule;
  readonly #context: DeviceContext;
  readonly #model: LoadedModel;
  readonly #recording: RunRecording;
  readonly #arena: BufferArena;
  readonly #program: ReplayProgram;
  /** Tensors over the program's buffers, for live pieces. */
  readonly #tensors = new Map<GPUBuffer, Tensor>();

  private constructor(
    ort: OrtModule,
    context: DeviceContext,
    model: LoadedModel,
    recording: RunRecording,
    arena: BufferArena,
    program: ReplayProgram,
  ) {
    this.#ort = ort;
    this.#context = context;
    this.#model = model;
    this.#recording = recording;
    this.#arena = arena;
    this.#program = program;
  }

  /** @throws NotReplayable where the recording does not say everything that a repetition needs */
  static async of(
    ort: OrtModule,
    context: DeviceContext,
    model: LoadedModel,
    recording: RunRecording,
  ): Promise<Replay> {
    const arena = new BufferArena(context.buffers);
    try {
      const { commands, given } = recording;
      const program = await ReplayProgram.build(context.kernels, arena, commands, [...given.keys()]);
      return new Replay(ort, context, model, recording, arena, program);
    } catch (error) {
      arena.release();
      throw error;
    }
  }

  /** GPU memory that it holds. */
  get bytes(): number {
    return this.#arena.bytes;
  }

  /** The runtime runs at most half of the pieces: fewer nodes than the whole model in one session has. */
  get sparesPieces(): boolean {
    const live = this.#program.parts.filter(({ kind }) => kind === 'piece').length;
    return 2 * live <= this.#model.stages.filter(({ session }) => session !== undefined).length;
  }

  release(): void {
    this.#arena.release();
  }

  /** The results, or `undefined` where this run turns out not to be a repetition; then nothing has happened. */
  async run(feeds: Feeds, fetches: Fetches): Promise<Results | undefined> {
    if (!this.#fits(feeds, fetches)) return undefined;
    const { device } = this.#context;
    let encoder = device.createCommandEncoder({ label: 'SigmoidAttention model' });
    for (const [recorded, name] of this.#recording.given) this.#fill(encoder, recorded, feeds[name]!);
    const values = new Map<string, Tensor>();
    for (const part of this.#program.parts) {
      if (part.kind === 'gpu') for (const step of part.steps) step(encoder);
      else {
        device.queue.submit([encoder.finish()]);
        if (!(await this.#runLive(part, feeds, values))) return undefined;
        encoder = device.createCommandEncoder({ label: 'SigmoidAttention model' });
      }
    }
    return this.#collect(encoder, fetches, values);
  }

  /** Given buffers need not allow copies: the runtime does not ask for that. What it computes on the CPU it returns itself. */
  #fits(feeds: Feeds, fetches: Fetches): boolean {
    return (
      [...this.#recording.given.values()].every((name) => isCopyable(feeds[name]!, COPY_SRC)) &&
      Object.entries(fetches).every(([name, target]) => {
        const { type, dims, buffer } = this.#recording.outputs.get(name)!;
        if (!target) return true;
        return (
          buffer !== undefined &&
          target.type === type &&
          target.dims.join() === dims.join() &&
          isCopyable(target, COPY_DST)
        );
      })
    );
  }

  #fill(encoder: GPUCommandEncoder, recorded: GPUBuffer, feed: Tensor): void {
    const to = this.#program.bufferOf(recorded);
    if (feed.location !== 'gpu-buffer') {
      upload(this.#context.device, to, bytesOf(feed));
      return;
    }
    const bytes = copyBytes(feed);
    encoder.copyBufferToBuffer(feed.gpuBuffer as unknown as GPUBuffer, 0, to, 0, bytes);
  }

  /** `false`: it returned something else than recorded commands need. */
  async #runLive(piece: LivePiece, feeds: Feeds, values: Map<string, Tensor>): Promise<boolean> {
    const session = this.#model.stages[piece.stage]!.session!;
    const inputs: Record<string, Tensor> = {};
    for (const [name, value] of piece.inputs)
      inputs[name] = this.#onGpu(value) ?? feeds[name] ?? values.get(name) ?? this.#constant(name);
    const wanted: Record<string, Tensor | null> = {};
    for (const [name, value] of piece.outputs) wanted[name] = this.#onGpu(value) ?? null;
    let results: InferenceSession.ReturnType;
    try {
      results = await session.run(inputs, wanted);
    } catch {
      return false;
    }
    for (const [name, value] of piece.outputs) {
      const tensor = results[name]! as Tensor;
      if (value.buffer !== undefined) continue;
      const guard = this.#recording.guards.get(name);
      if (guard !== undefined && !isSame(tensor, guard)) return false;
      values.set(name, tensor);
    }
    return true;
  }

  #onGpu({ buffer, type, dims }: Value): Tensor | undefined {
    if (buffer === undefined) return undefined;
    const own = this.#program.bufferOf(buffer);
    const known = this.#tensors.get(own);
    if (known?.type === type && known.dims.join() === dims.join()) return known;
    const tensor = this.#ort.Tensor.fromGpuBuffer(own, { dataType: type as 'float32', dims });
    this.#tensors.set(own, tensor);
    return tensor;
  }

  #constant(name: string): Tensor {
    const { value, bytes } = this.#recording.constants.get(name)!;
    return tensorFromBytes(this.#ort, value.type, bytes.slice().buffer as ArrayBuffer, value.dims);
  }

  async #collect(
    encoder: GPUCommandEncoder,
    fetches: Fetches,
    values: ReadonlyMap<string, Tensor>,
  ): Promise<Results> {
    const results: Results = {};
    const toRead: { name: string; buffer: GPUBuffer; type: Tensor.Type; dims: readonly number[] }[] = [];
    for (const [name, target] of Object.entries(fetches)) {
      const { type, dims, buffer } = this.#recording.outputs.get(name)!;
      const location = target?.location ?? this.#model.outputLocation(name);
      if (buffer === undefined) results[name] = values.get(name) ?? this.#constant(name);
      else if (location !== 'gpu-buffer')
        toRead.push({ name, buffer: this.#program.bufferOf(buffer), type, dims });
      else {
        const bytes = copyBytes({ type, dims });
        const tensor =
          target ??
          pooledTensor(this.#ort, this.#context, await this.#context.buffers.acquire(bytes), type, dims);
        encoder.copyBufferToBuffer(
          this.#program.bufferOf(buffer),
          0,
          tensor.gpuBuffer as unknown as GPUBuffer,
          0,
          bytes,
        );
        results[name] = tensor;
      }
    }
    const read = await download(this.#ort, this.#context, toRead, encoder);
    toRead.forEach(({ name }, index) => {
      const target = fetches[name];
      if (target) (target.data as Float32Array).set(read[index]!.data as Float32Array);
      results[name] = target ?? read[index]!;
    });
    return results;
  }
}

/** Tensors on the CPU are. */
function isCopyable(tensor: Tensor, usage: number): boolean {
  if (tensor.location !== 'gpu-buffer') return true;
  const buffer = tensor.gpuBuffer as unknown as GPUBuffer;
  return (buffer.usage & usage) !== 0 && buffer.size >= copyBytes(tensor);
}

/** Copies take multiples of 4 bytes. */
const copyBytes = ({ type, dims }: Pick<Tensor, 'type' | 'dims'>): number =>
  Math.ceil(byteLengthOf(type, dims) / 4) * 4;

function isSame(tensor: Tensor, { value, bytes }: Fixed): boolean {
  if (tensor.type !== value.type || tensor.dims.join() !== value.dims.join()) return false;
  return areEqual(bytesOf(tensor), bytes);
}

export function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}
