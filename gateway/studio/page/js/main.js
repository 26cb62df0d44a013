// Starts the Studio's page: tells the state of the server, and starts each part in its region.

import { startCompare } from "./compare/start.js";
import * as compose from "./compose/compose_region.js";
import * as details from "./details/details.js";
import * as history from "./history/history_view.js";
import { startLiveUpdates } from "./live_updates.js";
import * as player from "./player/player_region.js";
import { startRouting } from "./routing.js";
import { startShortcuts } from "./shortcuts.js";
import { startSignIn } from "./sign_in.js";
import { startToasts } from "./toasts.js";
import { startTop } from "./top_bar.js";

startToasts();
startShortcuts();
startTop();
startSignIn();
compose.start();
player.start();
details.start(history.start());
startCompare();
startLiveUpdates();
startRouting(); // Last: the take in the address is selected when all parts listen.
