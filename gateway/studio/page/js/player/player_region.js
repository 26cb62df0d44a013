/** Starts what shows, plays and counts takes. */
import { byId } from "../dom.js";
import { emit } from "../state.js";
import { TakePlayer } from "./audio/take_player.js";
import { NowPanel } from "./now_panel.js";
import { publishHooks } from "./page_hooks.js";
import { RunningTakes } from "./running_takes.js";

export function start() {
  const player = new TakePlayer();
  publishHooks(player);
  player.addEventListener("state", () => emit("playing", { id: player.wantsToPlay ? player.id : "" }));
  const panel = new NowPanel(byId("player"), player);
  return { player, panel, running: new RunningTakes(byId("compose")) };
}
