/**
 * Decides run by run whether the runtime runs the pieces or an earlier run is repeated. Shapes that come again are recorded
 * twice; when both recordings say the same and their repetition yields what the runtime yields, the runtime is no longer asked.
 */

import type { InferenceSession, Tensor } from 'onnxruntime-common';
import { NotReplayable } from './command-recorder.js';
import { valueOf } from './commands.js';
import type { DeviceContext } from './device-context.js';
import type { DirectRun, RecordingPlan } from './direct-run.js';
import { download } from './gpu-tensors.js';
import { areEqual, Replay } from './replay.js';
import { RunRecording } from './run-recording.js';
import type { Feeds, Fetches, OrtModule, Results } from './runtime.js';
import type { LoadedModel, TimedResults } from './split-session.js';
import { bytesOf } from './upload.js';

type Forms = RecordingPlan['outputForms'];

/** What is known of a set of input shapes. */
type State =
  | { readonly phase: 'seen'; readonly forms: Forms }
  | { readonly phase: 'recorded'; readonly forms: Forms; readonly flow: readonly string[] }
  | { readonly phase: 'ready'; readonly forms: Forms; readonly replay: Replay; misses: number }
  | { readonly phase: 'refused'; readonly reason: string };

/** Input shapes of which something is remembered. */
const MAX_SHAPES = 64;
/** GPU memory of the repetitions of one session; those used longest ago go first. */
const MAX_BYTES = 1 << 29;
/** Runs in a row that turn out to differ before a repetition is given up. */
const MAX_MISSES = 3;
/** Of each output, the bytes that are compared. */
const COMPARED_BYTES = 1 << 26;

type MakeRun = (
  feeds: Feeds,
  fetches: Fetches,
  options: InferenceSession.RunOptions,
  plan?: RecordingPlan,
) => DirectRun;

type RunResults = Omit<TimedResults, 'milliseconds'>;

export class Replays {
  readonly #ort: OrtModule;
  readonly #context: DeviceContext;
  readonly #model: LoadedModel;
  readonly #makeRun: MakeRun;
  /** In the order of last use. */
  readonly #states = new Map<string, State>();

  constructor(ort: OrtModule, context: DeviceContext, model: LoadedModel, makeRun: MakeRun) {
    this.#ort = ort;
    this.#context = context;
    this.#model = model;
    this.#makeRun = makeRun;
  }

  async run(feeds: Feeds, fetches: Fetches, options: InferenceSession.RunOptions): Promise<RunResults> {
    if (Object.keys(options).length > 0 || !Object.values(feeds).every(isPlain))
      return this.#direct(feeds, fetches, options);
    const key = keyOf(feeds, fetches);
    const state = this.#states.get(key);
    this.#states.delete(key);
    if (state === undefined) return this.#first(key, feeds, fetches);
    this.#states.set(key, state);
    switch (state.phase) {
      case 'seen':
      case 'recorded':
        return this.#record(key, state, feeds, fetches);
      case 'ready':
        return this.#repeat(key, state, feeds, fetches);
      case 'refused':
        return this.#direct(feeds, fetches, options);
    }
  }

  release(): void {
    for (const key of [...this.#states.keys()]) this.#forget(key);
  }

  async #direct(
    feeds: Feeds,
    fetches: Fetches,
    options: InferenceSession.RunOptions = {},
  ): Promise<RunResults> {
    const run = this.#makeRun(feeds, fetches, options);
    const results = await run.results();
    return { results, work: run.work, way: 'direct' };
  }

  async #first(key: string, feeds: Feeds, fetches: Fetches): Promise<RunResults> {
    const done = await this.#direct(feeds, fetches);
    const forms = new Map(
      Object.entries(done.results).map(([name, { type, dims }]) => [name, { type, dims: [...dims] }]),
    );
    if (this.#states.size >= MAX_SHAPES) this.#forget(this.#states.keys().next().value!);
    this.#states.set(key, { phase: 'seen', forms });
    return { ...done, way: 'preparing' };
  }

  async #record(
    key: string,
    state: Extract<State, { phase: 'seen' | 'recorded' }>,
    feeds: Feeds,
    fetches: Fetches,
  ): Promise<RunResults> {
    const { forms } = state;
    const recording = new RunRecording(this.#context.device, Object.keys(feeds));
    const run = this.#makeRun(feeds, fetches, {}, { recording, outputForms: forms });
    const results = await run.results();
    try {
      if (recording.obstacle !== undefined) throw recording.obstacle;
      const flow = recording.flow();
      if (state.phase === 'seen') this.#states.set(key, { phase: 'recorded', forms, flow });
      else {
        if (flow.join('\n') !== state.flow.join('\n'))
          throw new NotReplayable('two runs of the same shapes differ');
        const replay = await this.#verified(recording, feeds, results);
        this.#states.set(key, { phase: 'ready', forms, replay, misses: 0 });
        this.#context.replays++;
        this.#limitMemory();
      }
    } catch (error) {
      this.#states.set(key, { phase: 'refused', reason: String(error) });
    }
    return { results, work: run.work, way: 'preparing' };
  }

  /** The repetition of a recorded run; it must yield the same results from the same feeds. */
  async #verified(recording: RunRecording, feeds: Feeds, results: Results): Promise<Replay> {
    if (!recording.commands.some(({ kind }) => kind === 'dispatch'))
      throw new NotReplayable('the runtime has to run every piece');
    const replay = await Replay.of(this.#ort, this.#context, this.#model, recording);
    try {
      if (replay.bytes > MAX_BYTES) throw new NotReplayable(`it would hold ${replay.bytes} bytes`);
      const wanted = await this.#bytesIn(results);
      const found = await replay.run(
        feeds,
        Object.fromEntries(Object.keys(results).map((name) => [name, null])),
      );
      if (found === undefined) throw new NotReplayable('the repetition could not run');
      const got = await this.#bytesIn(found);
      for (const tensor of Object.values(found)) tensor.dispose();
      for (const [name, bytes] of wanted)
        if (!areEqual(bytes, got.get(name)!))
          throw new NotReplayable(`the repetition yields another '${name}'`);
      return replay;
    } catch (error) {
      replay.release();
      throw error;
    }
  }

  async #repeat(
    key: string,
    state: Extract<State, { phase: 'ready' }>,
    feeds: Feeds,
    fetches: Fetches,
  ): Promise<RunResults> {
    const results = await state.replay.run(feeds, fetches);
    if (results !== undefined) {
      state.misses = 0;
      return { results, work: 0, way: state.replay.sparesPieces ? 'replayed' : 'direct' };
    }
    if (++state.misses === MAX_MISSES) {
      this.#forget(key);
      this.#states.set(key, { phase: 'refused', reason: 'runs of the same shapes differ' });
    }
    return this.#direct(feeds, fetches);
  }

  /** A tensor's own way to its data would move it for the caller too. */
  async #bytesIn(results: Results): Promise<Map<string, Uint8Array>> {
    const bytes = new Map<string, Uint8Array>();
    for (const [name, tensor] of Object.entries(results)) {
      const { type, dims, buffer } = valueOf(tensor);
      const [onCpu] =
        buffer === undefined ? [tensor] : await download(this.#ort, this.#context, [{ buffer, type, dims }]);
      bytes.set(name, bytesOf(onCpu!).subarray(0, COMPARED_BYTES));
    }
    return bytes;
  }

  #limitMemory(): void {
    const ready = (): [string, Replay][] =>
      [...this.#states].flatMap(([key, state]) => (state.phase === 'ready' ? [[key, state.replay]] : []));
    for (const [key] of ready().slice(0, -1))
      if (ready().reduce((sum, [, { bytes }]) => sum + bytes, 0) > MAX_BYTES) this.#forget(key);
  }

  #forget(key: string): void {
    const state = this.#states.get(key);
    this.#states.delete(key);
    if (state?.phase !== 'ready') return;
    state.replay.release();
    this.#context.replays--;
  }
}

const isPlain = ({ location }: Tensor): boolean => location === 'cpu' || location === 'gpu-buffer';

function keyOf(feeds: Feeds, fetches: Fetches): string {
  const inputs = Object.entries(feeds).map(
    ([name, { type, dims, location }]) => `${name} ${type} ${location} ${dims.join('x')}`,
  );
  return `${inputs.sort().join()} -> ${Object.keys(fetches).sort().join()}`;
}
