/**
 * The fuzzing loop: mutates inputs of a corpus, keeps those that reach something new, reports those that break a promise.
 *
 * "New" is a block that never ran, or one that ran a number of times (in powers of two) that it never did before.
 */
import { joined, mutateBytes } from './bytes.js';
import { mutateProtobuf, withoutOneField } from './protobuf.js';
import { Random } from './random.js';
import { Violation, type Target } from './target.js';

/** CPU time after which one input counts as a hang, in milliseconds. */
const HANG_MS = 4000;
/** Growth of memory outside the JavaScript heap during one input that counts as unbounded, in bytes. */
const MEMORY_BYTES = 512 * 2 ** 20;

export interface Find {
  readonly input: Uint8Array;
  readonly what: string;
}

/** Runs one input; returns what is wrong, or null. */
export async function judge(target: Target, input: Uint8Array): Promise<string | null> {
  const buffers = process.memoryUsage().arrayBuffers;
  const problem = await judgeQuickly(target, input);
  const grown = process.memoryUsage().arrayBuffers - buffers;
  if (problem === null && grown > MEMORY_BYTES)
    return `${grown} bytes of memory for ${input.length} bytes of input`;
  return problem;
}

async function judgeQuickly(target: Target, input: Uint8Array): Promise<string | null> {
  const begin = performance.now();
  let cpu = process.cpuUsage();
  try {
    await target.run(input);
  } catch (error) {
    if (error instanceof Violation || (error as Error).name === 'Violation') return String(error);
    if (!target.isClear(error)) return `unclear error ${(error as Error).stack ?? String(error)}`;
  }
  if (performance.now() - begin < HANG_MS) return null;
  cpu = process.cpuUsage(cpu);
  const used = (cpu.user + cpu.system) / 1000;
  return used < HANG_MS ? null : `${Math.round(used)} ms of CPU time for ${input.length} bytes of input`;
}

export class Fuzzer {
  readonly corpus: Uint8Array[] = [];
  readonly finds: Find[] = [];
  executions = 0;
  private readonly seen: Uint8Array;
  private readonly random: Random;
  private readonly known = new Set<string>();

  constructor(
    private readonly target: Target,
    /** The counters that the target's code increments. */
    private readonly blocks: Uint8Array,
    seed: number,
    /** Told each input before it runs. */
    private readonly before: (input: Uint8Array) => void = () => undefined,
  ) {
    this.seen = new Uint8Array(blocks.length);
    this.random = new Random(seed);
  }

  /** Blocks that any input has reached. */
  get reached(): number {
    return this.seen.reduce((sum, bits) => sum + (bits === 0 ? 0 : 1), 0);
  }

  /** Runs an input as it is; keeps it when it reaches something new. */
  async add(input: Uint8Array): Promise<boolean> {
    this.blocks.fill(0);
    this.before(input);
    this.executions++;
    const problem = await judgeQuickly(this.target, input);
    if (problem !== null) this.report(input, problem);
    if (!this.isNew()) return false;
    this.corpus.push(input);
    return true;
  }

  /** Mutates and runs one input. */
  async step(): Promise<void> {
    const { random, corpus, target } = this;
    const parent = random.oneIn(3)
      ? corpus.at(-1 - random.below(Math.min(32, corpus.length)))!
      : random.pick(corpus);
    let input = parent;
    for (let rounds = 1 + random.below(random.oneIn(4) ? 8 : 3); rounds > 0; rounds--) {
      const other = random.pick(corpus);
      const blind = target.shape === 'bytes' || random.oneIn(8);
      input = blind ? mutateBytes(input, other, random) : mutateProtobuf(input, other, random);
      if (input.length > target.maxLength) input = input.slice(0, target.maxLength);
    }
    await this.add(input);
  }

  /** Removes what the problem does not need, for at most a minute. */
  async minimise(find: Find): Promise<Uint8Array> {
    const kind = kindOf(find.what);
    const deadline = performance.now() + 60_000;
    const shows = async (input: Uint8Array): Promise<boolean> => {
      this.before(input);
      return kindOf((await judge(this.target, input)) ?? '') === kind;
    };
    let best = find.input;
    for (let wasShorter = true; wasShorter && performance.now() < deadline;) {
      wasShorter = false;
      for (const candidate of this.target.shape === 'protobuf'
        ? withoutOneField(best)
        : withoutSomeBytes(best)) {
        if (performance.now() > deadline || !(await shows(candidate))) continue;
        best = candidate;
        wasShorter = true;
        break;
      }
    }
    return best;
  }

  private report(input: Uint8Array, what: string): void {
    const kind = kindOf(what);
    if (this.known.has(kind)) return;
    this.known.add(kind);
    this.finds.push({ input, what });
    console.log(`found in ${input.length} bytes: ${what}`);
  }

  private isNew(): boolean {
    let fresh = false;
    const { blocks, seen } = this;
    for (let i = 0; i < blocks.length; i++) {
      const count = blocks[i]!;
      if (count === 0) continue;
      const bit = 1 << Math.min(7, 31 - Math.clz32(count));
      if ((seen[i]! & bit) === 0) {
        seen[i]! |= bit;
        fresh = true;
      }
    }
    return fresh;
  }
}

function* withoutSomeBytes(input: Uint8Array): Generator<Uint8Array> {
  for (let size = input.length >> 1; size >= 1; size >>= 1) {
    for (let at = 0; at + size <= input.length; at += size) {
      yield joined(input.subarray(0, at), input.subarray(at + size));
    }
  }
}

/** The same problem found twice: the message without numbers and names, and the place it came from. */
function kindOf(what: string): string {
  const lines = what.split('\n');
  const place = lines.find((line) => /^\s+at /.test(line)) ?? '';
  return `${lines[0]!.replace(/'[^']*'|\[[^\]]*\]|-?\d+/g, '#')} ${place.trim()}`;
}
