/**
 * A converted model as a chain of ordinary sessions on the WebGPU provider with our kernels between them. Everything stays
 * on one device and in one queue, so that nothing is read back and nothing has to be waited for in between.
 */

import type { InferenceSession, Tensor } from 'onnxruntime-common';
import { outputShapes } from '../../wgsl/attention.js';
import type { GpuInputs, GpuOutputs, GpuTensor } from '../../wgsl/tensor.js';
import type { InputName } from '../schema.js';
import type { AttentionSite, OutputName } from './attention-site.js';
import type { DeviceContext } from './device-context.js';
import { PieceOutputs } from './piece-outputs.js';
import { enqueue } from './queue.js';
import {
  byteLengthOf,
  type Feeds,
  type Fetches,
  kernelType,
  type OrtModule,
  type Results,
  type SessionHandler,
  tensorFromBytes,
} from './runtime.js';

/** A stage that is ready to run. */
export interface LoadedStage {
  readonly session: InferenceSession | undefined;
  readonly attention: readonly AttentionSite[];
}

export interface LoadedModel {
  readonly stages: readonly LoadedStage[];
  readonly lastReader: ReadonlyMap<string, number>;
  /** Initializers that attention nodes read, on the GPU. */
  readonly constants: ReadonlyMap<string, GpuTensor>;
  readonly inputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly outputMetadata: readonly InferenceSession.ValueMetadata[];
  /** Where the caller wants an output. */
  readonly outputLocation: (name: string) => Tensor.DataLocation;
  readonly releaseConstants: () => void;
}

/** A run with what it took. */
export interface TimedResults {
  readonly results: Results;
  /** Of its largest attention: query length times key length. */
  readonly work: number;
  /** Without the wait for its turn. */
  readonly milliseconds: number;
}

export class SplitSession implements SessionHandler {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly outputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly #ort: OrtModule;
  readonly #context: DeviceContext;
  readonly #model: LoadedModel;
  /** Of the piece of each stage. */
  readonly #outputs: readonly PieceOutputs[];
  #released = false;

  constructor(ort: OrtModule, context: DeviceContext, model: LoadedModel) {
    this.#ort = ort;
    this.#context = context;
    this.#model = model;
    this.#outputs = model.stages.map(() => new PieceOutputs(ort, context));
    this.inputMetadata = model.inputMetadata;
    this.outputMetadata = model.outputMetadata;
    this.inputNames = model.inputMetadata.map(({ name }) => name);
    this.outputNames = model.outputMetadata.map(({ name }) => name);
  }

  async run(feeds: Feeds, fetches: Fetches, options: InferenceSession.RunOptions): Promise<Results> {
    return (await this.timedRun(feeds, fetches, options)).results;
  }

  timedRun(feeds: Feeds, fetches: Fetches, options: InferenceSession.RunOptions): Promise<TimedResults> {
    return enqueue(async () => {
      if (this.#released) throw new Error('the session was released');
      const start = performance.now();
      const run = new Run(this.#ort, this.#context, this.#model, this.#outputs, feeds, fetches, options);
      const results = await Promise.race([run.results(), this.#context.lost]);
      return { results, work: run.work, milliseconds: performance.now() - start };
    });
  }

  startProfiling(): void {
    for (const { session } of this.#model.stages) session?.startProfiling();
  }

  endProfiling(): void {
    for (const { session } of this.#model.stages) session?.endProfiling();
  }

  dispose(): Promise<void> {
    return enqueue(async () => {
      if (this.#released) return;
      this.#released = true;
      for (const { session } of this.#model.stages) await session?.release();
      this.#model.releaseConstants();
      this.#context.release();
    });
  }
}

/** A value during a run. */
interface Held {
  readonly tensor: Tensor;
  /** Gives the memory back; absent where it is the caller's. */
  readonly free?: () => void;
}

class Run {
  readonly #ort: OrtModule;
  readonly #context: DeviceContext;
  readonly #model: LoadedModel;
  readonly #fetches: Fetches;
  readonly #options: InferenceSession.RunOptions;
  readonly #outputs: readonly PieceOutputs[];
  readonly #values = new Map<string, Held>();
  #work = 0;
  /** Feeds that attention nodes read and that came in CPU memory. */
  readonly #uploads = new Map<string, GPUBuffer>();

  constructor(
    ort: OrtModule,
    context: DeviceContext,
    model: LoadedModel,
    outputs: readonly PieceOutputs[],
    feeds: Feeds,
    fetches: Fetches,
    options: InferenceSession.RunOptions,
  ) {
    this.#ort = ort;
    this.#context = context;
    this.#model = model;
    this.#outputs = outputs;
    this.#fetches = fetches;
    this.#options = options;
    for (const [name, tensor] of Object.entries(feeds)) this.#values.set(name, { tensor });
  }

  /** Query length times key length of the largest attention so far. */
  get work(): number {
    return this.#work;
  }

  async results(): Promise<Results> {
    try {
      for (const [index, stage] of this.#model.stages.entries()) {
        if (stage.session !== undefined) await this.#runPiece(stage.session, this.#outputs[index]!);
        if (stage.attention.length > 0) await this.#runAttention(stage.attention);
        this.#freeAfter(index);
      }
      return await this.#collect();
    } finally {
      for (const name of [...this.#values.keys()]) this.#free(name);
      for (const buffer of this.#uploads.values()) this.#context.buffers.release(buffer);
    }
  }

  async #runPiece(session: InferenceSession, outputs: PieceOutputs): Promise<void> {
    const feeds = Object.fromEntries(session.inputNames.map((name) => [name, this.#tensor(name)]));
    const wanted = session.outputNames.filter((name) => this.#isWanted(name));
    if (wanted.length === 0) return;
    const fetches = Object.fromEntries(
      wanted.map((name) => {
        const target = this.#fetches[name] ?? null;
        return [name, this.#model.lastReader.has(name) ? null : target];
      }),
    );
    // What stays between the pieces; what the caller gets may outlive the run and stays the runtime's.
    const inner = wanted.filter((name) => this.#model.lastReader.has(name) && !(name in this.#fetches));
    const results = await outputs.run(session, feeds, fetches, inner, this.#options);
    for (const [name, tensor] of Object.entries(results)) {
      const isOwn = tensor !== fetches[name];
      this.#values.set(name, isOwn ? { tensor, free: () => tensor.dispose() } : { tensor });
    }
  }

  #isWanted(name: string): boolean {
    return this.#model.lastReader.has(name) || name in this.#fetches;
  }

  async #runAttention(sites: readonly AttentionSite[]): Promise<void> {
    const encoder = this.#context.device.createCommandEncoder({ label: 'SigmoidAttention' });
    for (const site of sites) {
      try {
        await this.#encode(encoder, site);
      } catch (cause) {
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw new Error(`SigmoidAttention node '${site.label}': ${reason}`, { cause });
      }
    }
    this.#context.device.queue.submit([encoder.finish()]);
  }

  async #encode(encoder: GPUCommandEncoder, site: AttentionSite): Promise<void> {
    const inputs: { [name in InputName]?: GpuTensor } = {};
    for (const [input, value] of site.inputs) inputs[input] = await this.#onGpu(value);
    const shapes = outputShapes(inputs, site.attributes);
    this.#work = Math.max(this.#work, workOf(inputs, shapes.present_key));
    const { type } = this.#tensorOrConstantType(site.inputs.get('Q')!);
    const outputs: { [name in OutputName]?: GpuTensor } = {};
    for (const output of ['Y', 'present_key', 'present_value'] as const) {
      const value = site.outputs.get(output);
      if (value === undefined && output !== 'Y') continue;
      outputs[output] = {
        buffer: await this.#allocate(value, type, shapes[output]),
        type: kernelType(type, output),
        dims: shapes[output],
      };
    }
    this.#context.kernels.encode(encoder, inputs satisfies GpuInputs, outputs as GpuOutputs, site.attributes);
  }

  /** A buffer for an attention output, held as the value of that name; the caller's own where one was given for it. */
  async #allocate(value: string | undefined, type: Tensor.Type, dims: readonly number[]): Promise<GPUBuffer> {
    const { buffers } = this.#context;
    const target = value === undefined ? undefined : this.#fetches[value];
    if (target?.location === 'gpu-buffer') {
      if (target.type !== type || target.dims.join() !== dims.join())
        throw new Error(
          `the given output '${value}' is ${target.type} [${target.dims}]; it must be ${type} [${dims.join(',')}]`,
        );
      this.#values.set(value!, { tensor: target });
      return target.gpuBuffer as unknown as GPUBuffer;
    }
    const bytes = byteLengthOf(type, dims);
    const buffer = await buffers.acquire(bytes);
    const name = value ?? `unread output ${this.#values.size}`;
    if (bytes === 0) {
      buffers.release(buffer);
      this.#values.set(name, { tensor: tensorFromBytes(this.#ort, type, new ArrayBuffer(0), dims) });
      return buffer;
    }
    const tensor = this.#ort.Tensor.fromGpuBuffer(buffer, {
      dataType: type as 'float32',
      dims,
      download: async () =>
        (
          await this.#download([
            { tensor: this.#ort.Tensor.fromGpuBuffer(buffer, { dataType: type as 'float32', dims }) },
          ])
        )[0]!.data as Float32Array,
      dispose: () => buffers.release(buffer),
    });
    this.#values.set(name, { tensor, free: () => tensor.dispose() });
    return buffer;
  }

  #tensor(name: string): Tensor {
    const held = this.#values.get(name);
    if (held === undefined) throw new Error(`input '${name}' is missing in 'feeds'.`);
    return held.tensor;
  }

  #tensorOrConstantType(name: string): { type: Tensor.Type } {
    const constant = this.#model.constants.get(name);
    if (constant === undefined) return this.#tensor(name);
    return { type: constant.type === 'float' ? 'float32' : constant.type };
  }

  async #onGpu(name: string): Promise<GpuTensor> {
    const constant = this.#model.constants.get(name);
    if (constant !== undefined) return constant;
    const tensor = this.#tensor(name);
    const { dims } = tensor;
    const type = kernelType(tensor.type, name);
    if (tensor.location === 'gpu-buffer')
      return { buffer: tensor.gpuBuffer as unknown as GPUBuffer, type, dims };
    let buffer = this.#uploads.get(name);
    if (buffer === undefined) {
      const bytes = bytesOf(tensor);
      buffer = await this.#context.buffers.acquire(bytes.byteLength);
      this.#uploads.set(name, buffer);
      upload(this.#context.device, buffer, bytes);
    }
    return { buffer, type, dims };
  }

  #freeAfter(stage: number): void {
    for (const [name, last] of this.#model.lastReader)
      if (last === stage && !(name in this.#fetches)) this.#free(name);
  }

  #free(name: string): void {
    this.#values.get(name)?.free?.();
    this.#values.delete(name);
  }

  /** The outputs where the caller wants them; those are no longer freed by the run. */
  async #collect(): Promise<Results> {
    const results: Results = {};
    const toRead: string[] = [];
    for (const [name, target] of Object.entries(this.#fetches)) {
      const held = this.#values.get(name);
      if (held === undefined) throw new Error(`output '${name}' was not computed`);
      const location = target?.location ?? this.#model.outputLocation(name);
      if (held.tensor.location === 'gpu-buffer' && location !== 'gpu-buffer') toRead.push(name);
      else {
        results[name] = held.tensor;
        this.#values.delete(name);
      }
    }
    const read = await this.#download(toRead.map((name) => this.#values.get(name)!));
    toRead.forEach((name, index) => {
      const target = this.#fetches[name];
      if (target) (target.data as Float32Array).set(read[index]!.data as Float32Array);
      results[name] = target ?? read[index]!;
    });
    return results;
  }

  /** Copies of GPU tensors in CPU memory, read in one go. */
  async #download(held: readonly Pick<Held, 'tensor'>[]): Promise<Tensor[]> {
    if (held.length === 0) return [];
    const { device, buffers } = this.#context;
    const encoder = device.createCommandEncoder({ label: 'read outputs' });
    const copies: { staging: GPUBuffer; bytes: number; tensor: Tensor }[] = [];
    try {
      for (const { tensor } of held) {
        const bytes = byteLengthOf(tensor.type, tensor.dims);
        const staging = await buffers.acquire(bytes, 'readback');
        copies.push({ staging, bytes, tensor });
        const padded = Math.ceil(bytes / 4) * 4;
        encoder.copyBufferToBuffer(tensor.gpuBuffer as unknown as GPUBuffer, 0, staging, 0, padded);
      }
      device.queue.submit([encoder.finish()]);
      await Promise.all(copies.map(({ staging }) => staging.mapAsync(GPUMapMode.READ)));
      return copies.map(({ staging, bytes, tensor }) => {
        const data = staging.getMappedRange().slice(0, bytes);
        staging.unmap();
        return tensorFromBytes(this.#ort, tensor.type, data, tensor.dims);
      });
    } finally {
      for (const { staging } of copies) buffers.release(staging);
    }
  }
}

/** Query length times key length; the heads do not matter, since both ways to run grow with them alike. */
function workOf({ Q }: GpuInputs, presentKey: readonly number[]): number {
  const { dims } = Q!;
  return (dims[dims.length - 2] ?? 0) * (presentKey[2] ?? 0);
}

function bytesOf(tensor: Tensor): Uint8Array {
  const { buffer, byteOffset, byteLength } = tensor.data as Float32Array;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Writes bytes at the start of a buffer; the length is padded to the multiple of 4 that the queue needs. */
export function upload(device: GPUDevice, buffer: GPUBuffer, bytes: Uint8Array): void {
  const whole = bytes.byteLength - (bytes.byteLength % 4);
  const isShared = typeof SharedArrayBuffer !== 'undefined' && bytes.buffer instanceof SharedArrayBuffer;
  const source = (isShared ? bytes.slice() : bytes) as Uint8Array<ArrayBuffer>;
  if (whole > 0) device.queue.writeBuffer(buffer, 0, source.subarray(0, whole));
  if (whole === bytes.byteLength) return;
  const rest = new Uint8Array(4);
  rest.set(source.subarray(whole));
  device.queue.writeBuffer(buffer, whole, rest);
}
