/**
 * The bind groups of a plan for the buffers of a call. The same buffers come back from run to run, so that their groups are
 * remembered, but only until the garbage collector wants them: they must not keep a caller's buffers alive.
 */

import type { CallPlan, Step } from './plan-call.js';
import type { Role } from './tensor.js';

/** Sets of buffers that are remembered for each plan. */
const MAX_SETS = 32;

export class BindGroups {
  readonly #device: GPUDevice;
  readonly #numbers = new WeakMap<GPUBuffer, number>();
  readonly #sets = new WeakMap<CallPlan, Map<string, WeakRef<GPUBindGroup[]>>>();
  #nextNumber = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** One group for each step of the plan. */
  of(plan: CallPlan, bufferOf: (role: Role) => GPUBuffer): readonly GPUBindGroup[] {
    let sets = this.#sets.get(plan);
    if (sets === undefined) this.#sets.set(plan, (sets = new Map()));
    let key = '';
    for (const role of plan.roles) key += `${this.#numberOf(bufferOf(role))} `;
    const known = sets.get(key)?.deref();
    if (known !== undefined) return known;
    const groups = plan.steps.map((step) => this.#create(step, bufferOf));
    if (sets.size >= MAX_SETS) sets.clear();
    sets.set(key, new WeakRef(groups));
    return groups;
  }

  #create({ pipeline, uniform, bindings }: Step, bufferOf: (role: Role) => GPUBuffer): GPUBindGroup {
    const entries: GPUBindGroupEntry[] = [{ binding: 0, resource: { buffer: uniform } }];
    for (const bound of bindings) {
      const buffer = typeof bound.buffer === 'string' ? bufferOf(bound.buffer) : bound.buffer;
      entries.push({ binding: entries.length, resource: { ...bound, buffer } });
    }
    return this.#device.createBindGroup({ layout: pipeline.layout, entries });
  }

  #numberOf(buffer: GPUBuffer): number {
    let number = this.#numbers.get(buffer);
    if (number === undefined) this.#numbers.set(buffer, (number = this.#nextNumber++));
    return number;
  }
}
