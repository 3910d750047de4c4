// Loaded by the graph editor when it starts. Its own default workflow names models that are not here; the one that it
// opens instead runs with the model inside this server's package.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const DEFAULT = "/workflow_templates/latentloom/text_to_image.json";
const MARGIN = 100;
const SMALLEST = 0.65; // below that, the editor draws nodes without their texts

// Where to look from: everything, if it can still be read.
function view(nodes) {
  const corner = axis => Math.min(...nodes.map(({ pos }) => pos[axis]));
  const end = axis => Math.max(...nodes.map(({ pos, size }) => pos[axis] + size[axis]));
  const scale = Math.min(1, Math.max(SMALLEST, (innerWidth - 2 * MARGIN) / (end(0) - corner(0))));
  const middle = innerHeight / 2 / scale - (corner(1) + end(1)) / 2;
  return { scale, offset: [MARGIN / scale - corner(0), middle] };
}

app.registerExtension({
  name: "latentloom.defaultWorkflow",
  async setup() {
    const answer = await api.fetchApi(DEFAULT);
    if (!answer.ok) return;
    const workflow = await answer.json();
    const load = app.loadGraphData;
    app.loadGraphData = (graph, ...others) => {
      const own = () => ({ ...structuredClone(workflow), extra: { ...workflow.extra, ds: view(workflow.nodes) } });
      return load.call(app, graph ?? own(), ...others);
    };
    const settings = app.extensionManager.setting;
    if (settings.get("Comfy.TutorialCompleted")) return;
    // Whoever comes for the first time sees it too, not an empty canvas, and no news of another program's releases.
    await settings.set("Comfy.Notification.ShowVersionUpdates", false);
    await settings.set("Comfy.TutorialCompleted", true);
  },
});
