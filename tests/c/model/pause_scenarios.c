#include "model.h"
const model_scenario model_pause_scenarios[] = {{.name = NULL}};
