/** `verify`: runs two models on the same inputs and says how far apart they are. */
import path from 'node:path';
import { provenanceOf } from '../verify/provenance.js';
import { openRuntime } from '../verify/runtime.js';
import { verify } from '../verify/verify.js';
import { EXIT, Failure, type ExitCode } from './failure.js';
import { openModelOrFail } from './model-file.js';
import { Progress } from './progress.js';
import { runFailure } from './run-failure.js';
import { jsonText, verificationText } from './verify-text.js';

export interface VerifyOptions {
  readonly json?: boolean;
  readonly data?: string;
  readonly seed: number;
}

export async function verifyCommand(
  original: string,
  converted: string,
  options: VerifyOptions,
): Promise<ExitCode> {
  const first = openModelOrFail(original);
  const second = openModelOrFail(converted);
  const progress = new Progress();
  try {
    const provenance = provenanceOf(first.model, second.model);
    const result = await verify(
      {
        original: { model: first.model, folder: path.dirname(path.resolve(original)) },
        converted: { model: second.model, folder: path.dirname(path.resolve(converted)) },
        mode: provenance?.mode ?? null,
        replaced: provenance?.replaced ?? [],
        parametersOf: (site) => provenance?.parameters.get(site),
        ...(options.data === undefined ? {} : { data: options.data }),
        seed: options.seed,
        progress: (label, fraction) => progress.show(label, fraction),
      },
      await openRuntime(),
    );
    progress.clear();
    console.log(options.json ? jsonText({ original, converted, ...result }) : verificationText(result));
    return result.passed ? EXIT.done : EXIT.verificationFailed;
  } catch (error) {
    throw error instanceof Failure ? error : runFailure(error, options.data);
  } finally {
    progress.clear();
    first.close();
    second.close();
  }
}
