/** What a run of a model gives to the GPU, written down so that it can be given again. */

import type { Tensor } from 'onnxruntime-common';
import type { AttentionSite, OutputName } from './attention-site.js';
import type { InputName } from '../schema.js';
import type { GpuTensor } from '../../wgsl/tensor.js';

/** How a shader uses a binding. A buffer that may be written counts as written. */
export type Access = 'uniform' | 'read' | 'write';

export interface Binding {
  readonly binding: number;
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
  readonly access: Access;
}

export interface BoundGroup {
  readonly index: number;
  readonly layout: GPUBindGroupLayout;
  readonly bindings: readonly Binding[];
}

export interface Dispatch {
  readonly kind: 'dispatch';
  readonly pipeline: GPUComputePipeline;
  readonly groups: readonly BoundGroup[];
  readonly grid: readonly [number, number, number];
}

export interface Copy {
  readonly kind: 'copy';
  readonly from: GPUBuffer;
  readonly fromOffset: number;
  readonly to: GPUBuffer;
  readonly toOffset: number;
  readonly bytes: number;
}

export interface Clear {
  readonly kind: 'clear';
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly bytes: number;
}

/** Bytes from the CPU. */
export interface Write {
  readonly kind: 'write';
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly data: Uint8Array;
}

/** A call of our kernels. */
export interface AttentionCall {
  readonly kind: 'attention';
  readonly site: AttentionSite;
  readonly inputs: { readonly [name in InputName]?: GpuTensor };
  readonly outputs: { readonly [name in OutputName]?: GpuTensor };
}

/** A tensor of a recorded run. */
export interface Value {
  readonly type: Tensor.Type;
  readonly dims: readonly number[];
  /** Where it lay; absent for one in CPU memory. */
  readonly buffer?: GPUBuffer;
}

/** A piece that the runtime has to run every time. */
export interface LivePiece {
  readonly kind: 'piece';
  readonly stage: number;
  readonly inputs: ReadonlyMap<string, Value>;
  readonly outputs: ReadonlyMap<string, Value>;
}

export type GpuCommand = Dispatch | Copy | Clear | Write;
export type Command = GpuCommand | AttentionCall | LivePiece;

export function valueOf(tensor: Tensor): Value {
  const { type, dims, location } = tensor;
  return location === 'gpu-buffer'
    ? { type, dims, buffer: tensor.gpuBuffer as unknown as GPUBuffer }
    : { type, dims };
}

/** The buffers that a command reads, in a fixed order; data of a `write` comes from none. */
export function readBy(command: Command): GPUBuffer[] {
  switch (command.kind) {
    case 'dispatch':
      return bindingsOf(command).flatMap(({ access, buffer }) => (access === 'write' ? [] : [buffer]));
    case 'copy':
      return [command.from];
    case 'attention':
      return Object.values(command.inputs).map(({ buffer }) => buffer);
    case 'piece':
      return [...command.inputs.values()].flatMap(({ buffer }) => buffer ?? []);
    case 'clear':
    case 'write':
      return [];
  }
}

export function writtenBy(command: Command): GPUBuffer[] {
  switch (command.kind) {
    case 'dispatch':
      return bindingsOf(command).flatMap(({ access, buffer }) => (access === 'write' ? [buffer] : []));
    case 'copy':
      return [command.to];
    case 'attention':
      return Object.values(command.outputs).map(({ buffer }) => buffer);
    case 'piece':
      return [...command.outputs.values()].flatMap(({ buffer }) => buffer ?? []);
    case 'clear':
    case 'write':
      return [command.buffer];
  }
}

const bindingsOf = ({ groups }: Dispatch): Binding[] => groups.flatMap(({ bindings }) => bindings);

const numbers = new WeakMap<object, number>();
let nextNumber = 0;

function numberOf(thing: object): number {
  let number = numbers.get(thing);
  if (number === undefined) numbers.set(thing, (number = nextNumber++));
  return number;
}

/**
 * One line a command that says what it does with which results of which others, whatever buffers they lie in: the same for two
 * runs that give the GPU the same work.
 *
 * @param given names of the buffers that a run finds filled
 */
export function flowOf(commands: readonly Command[], given: ReadonlyMap<GPUBuffer, string>): string[] {
  const written = new Set(commands.flatMap(writtenBy));
  const content = new Map<GPUBuffer, string>(given);
  const sourceOf = (buffer: GPUBuffer): string =>
    content.get(buffer) ?? (written.has(buffer) ? 'unset' : `constant ${numberOf(buffer)}`);
  return commands.map((command, index) => {
    const line = `${describe(command)} <- ${readBy(command).map(sourceOf).join()}`;
    for (const buffer of writtenBy(command)) content.set(buffer, String(index));
    return line;
  });
}

function describe(command: Command): string {
  switch (command.kind) {
    case 'dispatch':
      return `dispatch ${numberOf(command.pipeline)} [${command.grid.join()}] ${command.groups
        .map(
          ({ index, bindings }) =>
            `${index}: ${bindings
              .map(({ binding, offset, size, access }) => `${binding} ${access} ${offset}+${size}`)
              .join()}`,
        )
        .join()}`;
    case 'copy':
      return `copy ${command.fromOffset} ${command.toOffset} ${command.bytes}`;
    case 'clear':
      return `clear ${command.offset} ${command.bytes}`;
    case 'write':
      return `write ${command.offset} ${command.data.length} ${hashOf(command.data)}`;
    case 'attention':
      return `attention ${command.site.label} ${Object.values({ ...command.inputs, ...command.outputs })
        .map(({ type, dims }) => `${type}[${dims.join()}]`)
        .join()}`;
    case 'piece':
      return `piece ${command.stage} ${[...command.inputs, ...command.outputs]
        .map(([name, { type, dims, buffer }]) => `${name} ${buffer ? 'GPU ' : ''}${type}[${dims.join()}]`)
        .join()}`;
  }
}

/** FNV-1a. */
function hashOf(data: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of data) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}
