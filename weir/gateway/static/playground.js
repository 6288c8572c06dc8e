/**
 * The playground of a model: a form made of the bundle's own description.
 *
 * A part for each task is a module of `playground/`. A model without a task, and a graph that takes
 * tensors only, gets the tensor call.
 */

import { mount as classifyPicture } from "./playground/classify_picture.js";
import { mount as classifyText } from "./playground/classify_text.js";
import { mount as forecastSeries } from "./playground/forecast_series.js";
import { mount as generateText } from "./playground/generate_text.js";
import { mount as tagText } from "./playground/tag_text.js";
import { mount as tensorCall } from "./playground/tensor_call.js";

/** By task: the part, and the field of the contract without which a server offers no task call. */
const PARTS = {
  "image-classification": { part: classifyPicture, needs: "preprocessing" },
  "sequence-classification": { part: classifyText, needs: "tokenisation" },
  tagging: { part: tagText, needs: "tokenisation" },
  "sequence-to-sequence": { part: generateText, needs: "tokenisation" },
  forecasting: { part: forecastSeries, needs: "series" },
};

/**
 * @param model `{name, version, contract, serverTarget, usesTls}`; `contract` is null for a model without one.
 * @returns a function that ends its calls and empties the container.
 */
export function mount(container, model) {
  const found = PARTS[model.contract?.task];
  const part = found && model.contract[found.needs] ? found.part : tensorCall;
  const unmount = part(container, model);
  return () => {
    unmount();
    container.replaceChildren();
  };
}
