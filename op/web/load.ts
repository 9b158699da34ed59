/** Turns a converted model into the sessions, constants and types that a SplitSession runs. */

import type { InferenceSession, Tensor } from 'onnxruntime-common';
import type { ValueInfo } from '../../converter/graph/graph.js';
import { attribute, type GraphNode } from '../../converter/graph/node.js';
import type { Model } from '../../converter/onnx/model.js';
import { type StoredTensor, tensorNumbers } from '../../converter/onnx/tensor.js';
import { numberToFloat16 } from '../half.js';
import type { GpuTensor } from '../../wgsl/tensor.js';
import { attentionSite } from './attention-site.js';
import { DeviceContext } from './device-context.js';
import { enqueue } from './queue.js';
import { type CutType, identityModel, pieceModel } from './piece-model.js';
import {
  byteLengthOf,
  DATA_TYPES,
  kernelType,
  type OrtModule,
  type SessionOptions,
  tensorTypeOf,
} from './runtime.js';
import { isAttention, type Piece, splitAtAttention, type Split } from './split.js';
import { type LoadedModel, type LoadedStage } from './split-session.js';
import { upload } from './upload.js';

/** Creates a stock session; what InferenceSession.create was before it was wrapped. */
export type CreateSession = (bytes: Uint8Array, options: SessionOptions) => Promise<InferenceSession>;

/** The device lacks something that the model needs; the portable function can still run it. */
export class UnsupportedOnDevice extends Error {
  override readonly name = 'UnsupportedOnDevice';
}

export interface LoadedSplit {
  readonly context: DeviceContext;
  readonly model: LoadedModel;
}

export async function loadSplit(
  ort: OrtModule,
  create: CreateSession,
  model: Model,
  options: SessionOptions,
): Promise<LoadedSplit> {
  const split = splitAtAttention(model.graph);
  const loader = new Loader(create, model, options, split);
  const stages: LoadedStage[] = [];
  let context: DeviceContext | undefined;
  try {
    for (const [index, { piece, attention }] of split.stages.entries()) {
      const session = piece === undefined ? undefined : await loader.pieceSession(piece, index);
      stages.push({ session, attention: attention.map(attentionSite) });
      attention.forEach((node) => loader.declareOutputs(node));
    }
    if (stages.every(({ session }) => session === undefined))
      await enqueue(async () =>
        (await create(identityModel(), { executionProviders: ['webgpu'] })).release(),
      );
    context = DeviceContext.acquire(await deviceOf(ort, options));
    const needsFloat16 = [...split.attentionInputs].some(
      (name) => loader.typeOf(name).dataType === DATA_TYPES.float16,
    );
    if (needsFloat16 && !context.device.features.has('shader-f16'))
      throw new UnsupportedOnDevice('the model is float16, which this GPU does not offer (shader-f16)');
    const constants = await uploadConstants(context, model, split);
    const release = context.buffers;
    return {
      context,
      model: {
        stages,
        lastReader: split.lastReader,
        constants,
        inputMetadata: model.graph.inputs
          .filter(({ name }) => !model.graph.initializers.has(name))
          .map((info) => metadataOf(info)),
        outputMetadata: model.graph.outputs.map((info) => metadataOf(info)),
        outputLocation: (name) => preferredLocation(options, name),
        releaseConstants: () => constants.forEach(({ buffer }) => release.release(buffer)),
      },
    };
  } catch (error) {
    for (const { session } of stages) if (session !== undefined) await enqueue(() => session.release());
    context?.release();
    throw error;
  }
}

function preferredLocation({ preferredOutputLocation }: SessionOptions, name: string): Tensor.DataLocation {
  if (typeof preferredOutputLocation === 'string') return preferredOutputLocation;
  return preferredOutputLocation?.[name] ?? 'cpu';
}

/** The device that the caller gave, or the one that the runtime made. */
export async function deviceOf(ort: OrtModule, options: SessionOptions): Promise<GPUDevice> {
  return givenDevice(options) ?? ((await ort.env.webgpu.device) as GPUDevice);
}

/** The device that the caller wants a session to use. */
export function givenDevice({ executionProviders = [] }: SessionOptions): GPUDevice | undefined {
  for (const provider of executionProviders)
    if (typeof provider === 'object' && provider.name === 'webgpu' && 'device' in provider && provider.device)
      return provider.device as GPUDevice;
  return undefined;
}

class Loader {
  readonly #create: CreateSession;
  readonly #model: Model;
  readonly #options: SessionOptions;
  readonly #split: Split;
  /** Types of the values that cross a cut, as far as they are known. */
  readonly #types = new Map<string, CutType>();

  constructor(create: CreateSession, model: Model, options: SessionOptions, split: Split) {
    this.#create = create;
    this.#model = model;
    this.#options = options;
    this.#split = split;
  }

  /** Creates the session of a piece and learns the types of its outputs. */
  async pieceSession(piece: Piece, stage: number): Promise<InferenceSession> {
    const bytes = pieceModel(this.#model, piece, (name) => this.typeOf(name));
    let session = await this.#sessionOf(bytes, piece);
    this.#learn(session);
    // Numbers that are not floating-point are shapes and indices, which the runtime works with on the CPU. Where only the
    // session could tell the type, they were asked for on the GPU.
    const misplaced = piece.outputs.filter(
      (name) => this.#isHandedOn(name, stage) && this.#declared(name) === undefined,
    );
    if (misplaced.some((name) => this.#isOnGpu(name, undefined) !== this.#isOnGpu(name, this.typeOf(name)))) {
      await enqueue(() => session.release());
      session = await this.#sessionOf(bytes, piece);
    }
    return session;
  }

  #isHandedOn(name: string, stage: number): boolean {
    return (this.#split.lastReader.get(name) ?? -1) >= stage;
  }

  async #sessionOf(bytes: Uint8Array, piece: Piece): Promise<InferenceSession> {
    const preferredOutputLocation = Object.fromEntries(
      piece.outputs.map((name) => {
        const isHandedOn = this.#split.lastReader.has(name);
        const onGpu = isHandedOn && this.#isOnGpu(name, this.#types.get(name) ?? this.#declared(name));
        return [
          name,
          onGpu ? 'gpu-buffer' : isHandedOn ? 'cpu' : preferredLocation(this.#options, name),
        ] as const;
      }),
    );
    const needed = new Set(
      piece.initializers.map((name) => this.#model.graph.initializers.get(name)?.external?.get('location')),
    );
    const externalData = this.#options.externalData?.filter(
      (file) => needed.has(pathOf(file)) || needed.has(pathOf(file).replace(/^\.\//, '')),
    );
    const options: SessionOptions = { ...this.#options, preferredOutputLocation };
    delete options.externalData;
    if (externalData !== undefined && externalData.length > 0) options.externalData = externalData;
    return enqueue(() => this.#create(bytes, options));
  }

  #isOnGpu(name: string, type: CutType | undefined): boolean {
    if (this.#split.attentionInputs.has(name) || type === undefined) return true;
    return type.dataType === DATA_TYPES.float32 || type.dataType === DATA_TYPES.float16;
  }

  #learn(session: InferenceSession): void {
    for (const metadata of session.outputMetadata)
      if (metadata.isTensor)
        this.#types.set(metadata.name, {
          dataType: DATA_TYPES[metadata.type],
          dims: metadata.shape.map((dim) => (isKnown(dim) ? dim : null)),
        });
  }

  /** Learns the types of an attention node's outputs from those of its inputs. */
  declareOutputs(node: GraphNode): void {
    const { inputs, outputs } = attentionSite(node);
    const q = this.typeOf(inputs.get('Q')!);
    const v = this.typeOf(inputs.get('V')!);
    const y = outputs.get('Y');
    const isRank4 = q.dims?.length === 4;
    if (y !== undefined)
      this.#types.set(y, {
        dataType: q.dataType,
        dims:
          this.#declared(y)?.dims ??
          q.dims?.map((dim, axis) =>
            axis < q.dims!.length - 1 ? dim : isRank4 ? (v.dims?.[3] ?? null) : null,
          ),
      });
    for (const name of [outputs.get('present_key'), outputs.get('present_value')])
      if (name !== undefined)
        this.#types.set(name, {
          dataType: q.dataType,
          dims: this.#declared(name)?.dims ?? [null, null, null, null],
        });
  }

  typeOf(name: string): CutType {
    const known = this.#types.get(name) ?? this.#declared(name);
    if (known !== undefined) return known;
    const stored = this.#model.graph.initializers.get(name) ?? constantOf(this.#model, name);
    if (stored !== undefined) return { dataType: stored.dataType, dims: stored.dims };
    throw new Error(`the type of value '${name}' is not known`);
  }

  #declared(name: string): CutType | undefined {
    const { graph } = this.#model;
    const info =
      graph.valueInfo.get(name) ??
      [...graph.inputs, ...graph.outputs].find((candidate) => candidate.name === name);
    if (info === undefined || info.dataType === 0) return undefined;
    return { dataType: info.dataType, dims: info.dims?.map((dim) => (typeof dim === 'number' ? dim : null)) };
  }
}

/** The runtime reports an open dimension without a name as the unsigned form of -1. */
const isKnown = (dim: number | string): dim is number => typeof dim === 'number' && dim >= 0 && dim < 2 ** 31;

type ExternalFile = NonNullable<SessionOptions['externalData']>[number];

export const pathOf = (file: ExternalFile): string =>
  typeof file === 'string' ? file : 'path' in file ? file.path : '';

function metadataOf({ name, dataType, dims }: ValueInfo): InferenceSession.ValueMetadata {
  const type = tensorTypeOf(dataType);
  if (type === undefined) return { name, isTensor: false };
  return { name, isTensor: true, type, shape: (dims ?? []).map((dim) => dim ?? '') };
}

function constantOf(model: Model, name: string): StoredTensor | undefined {
  const producer = model.graph.producer(name);
  if (producer?.opType !== 'Constant') return undefined;
  return attribute(producer, 'value')?.tensor ?? undefined;
}

/** Uploads the initializers and constants that attention nodes read. */
async function uploadConstants(
  { device, buffers }: DeviceContext,
  model: Model,
  split: Split,
): Promise<Map<string, GpuTensor>> {
  const constants = new Map<string, GpuTensor>();
  for (const name of split.attentionInputs) {
    const producer = model.graph.producer(name);
    if (producer !== undefined && (isAttention(producer) || producer.opType !== 'Constant')) continue;
    const stored = model.graph.initializers.get(name) ?? constantOf(model, name);
    if (stored === undefined) continue;
    const numbers = tensorNumbers(stored, model.source, model.external);
    if (numbers === null)
      throw new Error(
        `the data of '${name}' is in '${stored.external?.get('location') ?? ''}', which options.externalData does not hold`,
      );
    const type = tensorTypeOf(stored.dataType) ?? 'string';
    const kernel = kernelType(type, name);
    const buffer = await buffers.acquire(byteLengthOf(type, stored.dims));
    upload(device, buffer, bytesOfNumbers(kernel, numbers));
    constants.set(name, { buffer, type: kernel, dims: stored.dims });
  }
  return constants;
}

function bytesOfNumbers(type: GpuTensor['type'], numbers: Float64Array): Uint8Array {
  switch (type) {
    case 'float':
      return new Uint8Array(Float32Array.from(numbers).buffer);
    case 'float16':
      return new Uint8Array(Uint16Array.from(numbers, numberToFloat16).buffer);
    case 'int64':
      return new Uint8Array(BigInt64Array.from([...numbers].map(BigInt)).buffer);
    case 'bool':
      return Uint8Array.from(numbers);
  }
}
