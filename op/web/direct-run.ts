/** A run of a cut model in which the runtime runs every piece. It can be recorded on the way. */

import type { InferenceSession, Tensor } from 'onnxruntime-common';
import { outputShapes } from '../../wgsl/attention.js';
import type { GpuInputs, GpuOutputs, GpuTensor } from '../../wgsl/tensor.js';
import type { InputName } from '../schema.js';
import type { AttentionSite, OutputName } from './attention-site.js';
import type { Value } from './commands.js';
import type { DeviceContext } from './device-context.js';
import { download, pooledTensor } from './gpu-tensors.js';
import type { PieceOutputs } from './piece-outputs.js';
import type { RunRecording } from './run-recording.js';
import {
  byteLengthOf,
  type Feeds,
  type Fetches,
  kernelType,
  type OrtModule,
  type Results,
  tensorFromBytes,
} from './runtime.js';
import type { LoadedModel } from './split-session.js';
import { bytesOf, upload } from './upload.js';

/** A recording to be made, of a run whose outputs have known types and shapes. */
export interface RecordingPlan {
  readonly recording: RunRecording;
  readonly outputForms: ReadonlyMap<string, Pick<Value, 'type' | 'dims'>>;
}

const isFloat = (type: Tensor.Type): boolean => type === 'float32' || type === 'float16';

/** A value during a run. */
interface Held {
  readonly tensor: Tensor;
  /** Gives the memory back; absent where it is the caller's. */
  readonly free?: () => void;
}

export class DirectRun {
  readonly #ort: OrtModule;
  readonly #context: DeviceContext;
  readonly #model: LoadedModel;
  readonly #fetches: Fetches;
  readonly #options: InferenceSession.RunOptions;
  readonly #outputs: readonly PieceOutputs[];
  readonly #values = new Map<string, Held>();
  readonly #plan: RecordingPlan | undefined;
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
    plan?: RecordingPlan,
  ) {
    this.#ort = ort;
    this.#context = context;
    this.#model = model;
    this.#outputs = outputs;
    this.#fetches = fetches;
    this.#options = options;
    this.#plan = plan;
    for (const [name, tensor] of Object.entries(feeds)) this.#values.set(name, { tensor });
  }

  /** Query length times key length of the largest attention so far. */
  get work(): number {
    return this.#work;
  }

  async results(): Promise<Results> {
    try {
      if (this.#plan !== undefined) await this.#giveFeeds(this.#plan.recording);
      for (const [index, stage] of this.#model.stages.entries()) {
        if (stage.session !== undefined) await this.#runPiece(index, stage.session);
        if (stage.attention.length > 0) await this.#runAttention(stage.attention);
        this.#freeAfter(index);
      }
      return await this.#collect();
    } finally {
      for (const name of [...this.#values.keys()]) this.#free(name);
      for (const buffer of this.#uploads.values()) this.#context.buffers.release(buffer);
    }
  }

  /** All that a repetition gets from its caller must lie in buffers, except what the runtime wants on the CPU. */
  async #giveFeeds(recording: RunRecording): Promise<void> {
    for (const [name, { tensor }] of [...this.#values]) {
      if (tensor.location === 'gpu-buffer') {
        recording.give(tensor.gpuBuffer as unknown as GPUBuffer, name);
        continue;
      }
      const { type, dims } = tensor;
      if (!isFloat(type) || byteLengthOf(type, dims) === 0) continue;
      const { buffer } = await this.#onGpu(name);
      this.#values.set(name, {
        tensor: this.#ort.Tensor.fromGpuBuffer(buffer, { dataType: type as 'float32', dims }),
      });
    }
  }

  async #runPiece(stage: number, session: InferenceSession): Promise<void> {
    const outputs = this.#outputs[stage]!;
    const feeds = Object.fromEntries(session.inputNames.map((name) => [name, this.#tensor(name)]));
    const wanted = session.outputNames.filter((name) => this.#isWanted(name));
    if (wanted.length === 0) return;
    const fetches: Record<string, Tensor | null> = {};
    for (const name of wanted)
      fetches[name] = this.#model.lastReader.has(name)
        ? null
        : ((await this.#keptOnGpu(name)) ?? this.#targetOnGpu(name) ?? null);
    // What stays between the pieces; what the caller gets may outlive the run and stays the runtime's.
    const inner = wanted.filter((name) => this.#model.lastReader.has(name) && !(name in this.#fetches));
    const run = (): Promise<Results> => outputs.run(session, feeds, fetches, inner, this.#options);
    const results = await (this.#plan?.recording.piece(stage, feeds, run) ?? run());
    for (const [name, tensor] of Object.entries(results)) {
      const isOwn = tensor !== this.#fetches[name];
      this.#values.set(name, isOwn ? { tensor, free: () => tensor.dispose() } : { tensor });
    }
  }

  /** While a run is recorded, outputs that the caller wants on the CPU are read back at its end instead of by the runtime. */
  async #keptOnGpu(name: string): Promise<Tensor | undefined> {
    const form = this.#plan?.outputForms.get(name);
    if (form === undefined || !isFloat(form.type) || this.#fetches[name]?.location === 'gpu-buffer')
      return undefined;
    const { type, dims } = form;
    if (byteLengthOf(type, dims) === 0) return undefined;
    const buffer = await this.#context.buffers.acquire(byteLengthOf(type, dims));
    return pooledTensor(this.#ort, this.#context, buffer, type, dims);
  }

  /** The runtime leaves given outputs on the CPU as they were; those are filled at the end. */
  #targetOnGpu(name: string): Tensor | undefined {
    const target = this.#fetches[name];
    return target?.location === 'gpu-buffer' ? target : undefined;
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
    this.#plan?.recording.attention({ site, inputs, outputs });
  }

  /** A buffer for an attention output, held as the value of that name; the caller's own where one was given for it. */
  async #allocate(value: string | undefined, type: Tensor.Type, dims: readonly number[]): Promise<GPUBuffer> {
    const { buffers } = this.#context;
    const target = value === undefined ? undefined : this.#fetches[value];
    if (target?.location === 'gpu-buffer') {
      checkTarget(value!, target, { type, dims });
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
    const tensor = pooledTensor(this.#ort, this.#context, buffer, type, dims);
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
      this.#plan?.recording.give(buffer, name);
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
      this.#plan?.recording.output(name, held.tensor);
      if (target) checkTarget(name, target, held.tensor);
      const location = target?.location ?? this.#model.outputLocation(name);
      if (held.tensor.location === 'gpu-buffer' && location !== 'gpu-buffer') toRead.push(name);
      else if (target && target !== held.tensor) {
        this.#fill(target, held.tensor);
        results[name] = target;
      } else {
        results[name] = held.tensor;
        this.#values.delete(name);
      }
    }
    const read = await download(
      this.#ort,
      this.#context,
      toRead.map((name) => {
        const { tensor } = this.#values.get(name)!;
        const { type, dims } = tensor;
        return { buffer: tensor.gpuBuffer as unknown as GPUBuffer, type, dims };
      }),
    );
    toRead.forEach((name, index) => {
      const target = this.#fetches[name];
      if (target) this.#fill(target, read[index]!);
      results[name] = target ?? read[index]!;
    });
    return results;
  }

  /** Copies to the output that the caller gave; from the CPU, or within the GPU. */
  #fill(target: Tensor, tensor: Tensor): void {
    const { device } = this.#context;
    const buffer = target.location === 'gpu-buffer' ? (target.gpuBuffer as unknown as GPUBuffer) : undefined;
    if (tensor.location === 'gpu-buffer') {
      const bytes = Math.ceil(byteLengthOf(tensor.type, tensor.dims) / 4) * 4;
      const encoder = device.createCommandEncoder({ label: 'fill a given output' });
      encoder.copyBufferToBuffer(tensor.gpuBuffer as unknown as GPUBuffer, 0, buffer!, 0, bytes);
      device.queue.submit([encoder.finish()]);
    } else if (buffer !== undefined) upload(device, buffer, bytesOf(tensor));
    else if (tensor.type === 'string')
      (tensor.data as string[]).forEach((text, index) => ((target.data as string[])[index] = text));
    else (target.data as Float32Array).set(tensor.data as Float32Array);
  }
}

function checkTarget(name: string, target: Tensor, { type, dims }: Pick<Tensor, 'type' | 'dims'>): void {
  if (target.type !== type || target.dims.join() !== dims.join())
    throw new Error(
      `the given output '${name}' is ${target.type} [${target.dims}]; it must be ${type} [${dims.join(',')}]`,
    );
}

/** Query length times key length; the heads do not matter, since both ways to run grow with them alike. */
function workOf({ Q }: GpuInputs, presentKey: readonly number[]): number {
  const { dims } = Q!;
  return (dims[dims.length - 2] ?? 0) * (presentKey[2] ?? 0);
}
