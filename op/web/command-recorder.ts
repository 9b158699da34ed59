/**
 * Writes down what the runtime gives to a device while it runs a piece. The runtime reaches the GPU through the page's own
 * GPUDevice object; for the time of a recording its methods are replaced by ones that take notes and then do the same.
 */

import type { Access, Binding, BoundGroup, GpuCommand } from './commands.js';

/** The commands of a piece cannot be given again without the runtime. */
export class NotReplayable extends Error {
  override readonly name = 'NotReplayable';
}

type AccessOfBinding = ReadonlyMap<number, Access>;

const accessOfLayout = new WeakMap<GPUBindGroupLayout, AccessOfBinding>();
const groupsOfLayout = new WeakMap<GPUPipelineLayout, readonly (AccessOfBinding | undefined)[]>();
const groupsOfPipeline = new WeakMap<GPUComputePipeline, readonly (AccessOfBinding | undefined)[]>();
const watched = new WeakSet<GPUDevice>();

const ACCESS: Readonly<Record<GPUBufferBindingType, Access>> = {
  uniform: 'uniform',
  'read-only-storage': 'read',
  storage: 'write',
};

/**
 * From now on remembers which bindings the pipelines of a device write. Pipelines that exist already stay unknown, and what uses
 * them is not recorded.
 */
export function watchPipelines(device: GPUDevice): void {
  if (watched.has(device)) return;
  watched.add(device);
  const createBindGroupLayout = device.createBindGroupLayout.bind(device);
  device.createBindGroupLayout = (descriptor) => {
    const layout = createBindGroupLayout(descriptor);
    const entries = [...descriptor.entries];
    if (entries.every(({ buffer }) => buffer !== undefined))
      accessOfLayout.set(
        layout,
        new Map(entries.map(({ binding, buffer }) => [binding, ACCESS[buffer!.type ?? 'uniform']])),
      );
    return layout;
  };
  const createPipelineLayout = device.createPipelineLayout.bind(device);
  device.createPipelineLayout = (descriptor) => {
    const layout = createPipelineLayout(descriptor);
    const groups = [...descriptor.bindGroupLayouts];
    groupsOfLayout.set(
      layout,
      groups.map((group) => (group ? accessOfLayout.get(group) : undefined)),
    );
    return layout;
  };
  const remember = (
    pipeline: GPUComputePipeline,
    { layout }: GPUComputePipelineDescriptor,
  ): GPUComputePipeline => {
    const groups = layout === 'auto' ? undefined : groupsOfLayout.get(layout);
    if (groups !== undefined) groupsOfPipeline.set(pipeline, groups);
    return pipeline;
  };
  const createComputePipeline = device.createComputePipeline.bind(device);
  device.createComputePipeline = (descriptor) => remember(createComputePipeline(descriptor), descriptor);
  const createComputePipelineAsync = device.createComputePipelineAsync.bind(device);
  device.createComputePipelineAsync = async (descriptor) =>
    remember(await createComputePipelineAsync(descriptor), descriptor);
}

const MAP_READ = 0x01; // GPUBufferUsage.MAP_READ

/** Methods that change nothing that a repetition would need. */
const HARMLESS: readonly string[] = ['pushDebugGroup', 'popDebugGroup', 'insertDebugMarker', 'finish', 'end'];

interface Group {
  readonly layout: GPUBindGroupLayout;
  readonly entries: readonly GPUBindGroupEntry[];
}

/**
 * Runs `work`, which must be alone in using the device.
 *
 * @returns its result, and the commands in the order in which the GPU executes them or, where they cannot be repeated, why
 */
export async function recordCommands<Result>(
  device: GPUDevice,
  work: () => Promise<Result>,
): Promise<{ result: Result; commands: GpuCommand[] | NotReplayable }> {
  const recorder = new Recorder(device);
  try {
    recorder.start();
    const result = await work();
    return { result, commands: recorder.obstacle ?? recorder.commands };
  } finally {
    recorder.stop();
  }
}

class Recorder {
  readonly commands: GpuCommand[] = [];
  obstacle: NotReplayable | undefined;
  readonly #undo: (() => void)[] = [];
  readonly #groups = new WeakMap<GPUBindGroup, Group>();
  readonly #buffers = new WeakMap<GPUCommandBuffer, readonly GpuCommand[]>();

  readonly #device: GPUDevice;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Never throws: where the objects of the page cannot be changed, nothing is recorded. */
  start(): void {
    try {
      this.#hook(this.#device);
    } catch (cause) {
      this.stop();
      this.#refuse(`the device cannot be watched: ${String(cause)}`);
    }
  }

  #hook(device: GPUDevice): void {
    const { queue } = device;
    this.#replace(device, 'createBindGroup', (create) => (descriptor) => {
      const group = create(descriptor);
      this.#groups.set(group, { layout: descriptor.layout, entries: [...descriptor.entries] });
      return group;
    });
    this.#replace(
      device,
      'createBuffer',
      (create) => (descriptor) => this.#noteMappedData(create(descriptor), descriptor),
    );
    this.#replace(
      device,
      'createCommandEncoder',
      (create) => (descriptor) => this.#noteEncoder(create(descriptor)),
    );
    this.#replace(queue, 'submit', (submit) => (buffers) => {
      const all = [...buffers];
      for (const buffer of all) {
        const commands = this.#buffers.get(buffer);
        if (commands === undefined) this.#refuse('commands were encoded before');
        else this.commands.push(...commands);
      }
      submit(all);
    });
    const write = queue.writeBuffer.bind(queue);
    this.#replace(queue, 'writeBuffer', () => (buffer, offset, data, from, size) => {
      this.commands.push({ kind: 'write', buffer, offset, data: copyOf(data, from, size) });
      write(buffer, offset, data as ArrayBuffer, from, size);
    });
    this.#refuseOthers(queue, ['submit', 'writeBuffer', 'onSubmittedWorkDone']);
  }

  stop(): void {
    for (const undo of this.#undo.splice(0).reverse()) undo();
  }

  #refuse(reason: string): void {
    this.obstacle ??= new NotReplayable(reason);
  }

  #replace<Target extends object, Name extends keyof Target>(
    target: Target,
    name: Name,
    change: (
      original: Target[Name] extends (...args: infer Args) => infer Result
        ? (...args: Args) => Result
        : never,
    ) => Target[Name],
  ): void {
    const own = Object.getOwnPropertyDescriptor(target, name);
    const original = target[name] as (...args: unknown[]) => unknown;
    target[name] = change(original.bind(target) as never);
    this.#undo.push(() => {
      if (own === undefined) Reflect.deleteProperty(target, name);
      else Object.defineProperty(target, name, own);
    });
  }

  /** Every method that is not known here makes the recording useless. */
  #refuseOthers(target: object, known: readonly string[]): void {
    const prototype = Object.getPrototypeOf(target) as object;
    for (const name of Object.getOwnPropertyNames(prototype)) {
      if (name === 'constructor' || known.includes(name) || HARMLESS.includes(name)) continue;
      if (typeof Object.getOwnPropertyDescriptor(prototype, name)?.value !== 'function') continue;
      this.#replace(target as Record<string, (...args: unknown[]) => unknown>, name, (original) => {
        return (...args: unknown[]) => {
          this.#refuse(`${target.constructor.name}.${name} was called`);
          return (original as (...args: unknown[]) => unknown)(...args);
        };
      });
    }
  }

  /** What the CPU puts into a buffer that is created mapped counts as written when it is unmapped. */
  #noteMappedData(buffer: GPUBuffer, { mappedAtCreation }: GPUBufferDescriptor): GPUBuffer {
    if (mappedAtCreation !== true) return buffer;
    const ranges: { offset: number; range: ArrayBuffer }[] = [];
    this.#replace(buffer, 'getMappedRange', (get) => (offset, size) => {
      const range = get(offset, size);
      ranges.push({ offset: offset ?? 0, range });
      return range;
    });
    this.#replace(buffer, 'unmap', (unmap) => () => {
      for (const { offset, range } of ranges)
        this.commands.push({ kind: 'write', buffer, offset, data: new Uint8Array(range.slice(0)) });
      unmap();
    });
    return buffer;
  }

  #noteEncoder(encoder: GPUCommandEncoder): GPUCommandEncoder {
    const commands: GpuCommand[] = [];
    this.#replace(encoder, 'copyBufferToBuffer', (copy) => (...args: unknown[]) => {
      const [from, fromOffset, to, toOffset, bytes] = (
        typeof args[1] === 'number' ? args : [args[0], 0, args[1], 0, args[2]]
      ) as [GPUBuffer, number, GPUBuffer, number, number | undefined];
      if (to.usage & MAP_READ) this.#refuse('something is read back');
      const length = bytes ?? from.size - fromOffset;
      commands.push({ kind: 'copy', from, fromOffset, to, toOffset, bytes: length });
      copy(from, fromOffset, to, toOffset, length);
    });
    this.#replace(encoder, 'clearBuffer', (clear) => (buffer, offset = 0, size = buffer.size - offset) => {
      commands.push({ kind: 'clear', buffer, offset, bytes: size });
      clear(buffer, offset, size);
    });
    this.#replace(encoder, 'beginComputePass', (begin) => (descriptor) => {
      if (descriptor?.timestampWrites) this.#refuse('the runtime profiles its shaders');
      return this.#notePass(begin(descriptor), commands);
    });
    this.#replace(encoder, 'finish', (finish) => (descriptor) => {
      const buffer = finish(descriptor);
      this.#buffers.set(buffer, commands);
      return buffer;
    });
    this.#refuseOthers(encoder, ['copyBufferToBuffer', 'clearBuffer', 'beginComputePass']);
    return encoder;
  }

  #notePass(pass: GPUComputePassEncoder, commands: GpuCommand[]): GPUComputePassEncoder {
    let pipeline: GPUComputePipeline | undefined;
    const groups = new Map<number, GPUBindGroup>();
    this.#replace(pass, 'setPipeline', (set) => (chosen) => {
      pipeline = chosen;
      set(chosen);
    });
    this.#replace(pass, 'setBindGroup', (set) => (...args: unknown[]) => {
      const [index, group] = args as [number, GPUBindGroup | null];
      const offsets = args[2] as ArrayLike<number> | undefined;
      if (offsets !== undefined && offsets.length > 0) this.#refuse('a binding has a dynamic offset');
      if (group) groups.set(index, group);
      else groups.delete(index);
      (set as (...args: unknown[]) => void)(...args);
    });
    this.#replace(pass, 'dispatchWorkgroups', (dispatch) => (x, y = 1, z = 1) => {
      const bound = pipeline && this.#boundGroups(pipeline, groups);
      if (bound) commands.push({ kind: 'dispatch', pipeline: pipeline!, groups: bound, grid: [x, y, z] });
      dispatch(x, y, z);
    });
    this.#refuseOthers(pass, ['setPipeline', 'setBindGroup', 'dispatchWorkgroups']);
    return pass;
  }

  #boundGroups(
    pipeline: GPUComputePipeline,
    groups: ReadonlyMap<number, GPUBindGroup>,
  ): BoundGroup[] | undefined {
    const access = groupsOfPipeline.get(pipeline);
    const found = access?.map((bindings, index) => {
      const group = groups.get(index) && this.#groups.get(groups.get(index)!);
      return bindings && group && boundGroup(index, group, bindings);
    });
    if (found?.every((group) => group !== undefined)) return found as BoundGroup[];
    this.#refuse('a pipeline or bind group was made before install()');
    return undefined;
  }
}

function boundGroup(index: number, group: Group, access: AccessOfBinding): BoundGroup | undefined {
  const bindings: Binding[] = [];
  for (const { binding, resource } of group.entries) {
    const kind = access.get(binding);
    const bound = bufferBindingOf(resource);
    if (kind === undefined || bound === undefined) return undefined;
    const { buffer, offset = 0, size = buffer.size - offset } = bound;
    bindings.push({ binding, buffer, offset, size, access: kind });
  }
  return { index, layout: group.layout, bindings };
}

function bufferBindingOf(resource: GPUBindingResource): GPUBufferBinding | undefined {
  if ('buffer' in resource) return resource;
  return 'mapState' in resource ? { buffer: resource } : undefined;
}

/** `from` and `size` count elements where the data is an array of them. */
function copyOf(data: ArrayBufferLike | ArrayBufferView, from = 0, size?: number): Uint8Array {
  const bytes = ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
  const unit = 'BYTES_PER_ELEMENT' in data ? Number(data.BYTES_PER_ELEMENT) : 1;
  return bytes.slice(from * unit, size === undefined ? undefined : (from + size) * unit);
}
