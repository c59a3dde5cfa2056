package chaindisk

import (
	"encoding/json"
	"fmt"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// smart is what smartctl tells in JSON, as far as it is read (smartctl(8), --json).
type smart struct {
	RotationRate *int `json:"rotation_rate"` // turns per minute; 0: it does not turn
	Status       *struct {
		Passed bool `json:"passed"`
	} `json:"smart_status"`
	Temperature *struct {
		Current int `json:"current"`
	} `json:"temperature"`
	NVMe *struct {
		AvailableSpare int    `json:"available_spare"`
		SpareThreshold int    `json:"available_spare_threshold"`
		PercentageUsed uint32 `json:"percentage_used"`
		MediaErrors    uint64 `json:"media_errors"`
	} `json:"nvme_smart_health_information_log"`
	ATA *struct {
		Table []struct {
			ID  int `json:"id"`
			Raw struct {
				Value uint64 `json:"value"`
			} `json:"raw"`
		} `json:"table"`
	} `json:"ata_smart_attributes"`
}

// Attributes of ATA disks that count what is lost (smartctl(8); the numbers are the same for all
// makers).
const (
	pendingSectors       = 197
	uncorrectableSectors = 198
)

// maxUsed is the last percentage that is believed: NVMe has 255 for "more".
const maxUsed = 255

// parseHealth reads what smartctl has printed. A disk that does not tell its health has no verdict.
func parseHealth(text []byte) (health *basev1.DiskHealth, rotation *int) {
	var told smart
	if err := json.Unmarshal(text, &told); err != nil {
		return &basev1.DiskHealth{}, nil
	}
	health = &basev1.DiskHealth{}
	if t := told.Temperature; t != nil && t.Current > 0 && t.Current < 150 {
		celsius := float64(t.Current)
		health.TemperatureCelsius = &celsius
	}
	if told.NVMe != nil && told.NVMe.PercentageUsed <= maxUsed {
		health.UsedPercent = &told.NVMe.PercentageUsed
	}
	if told.Status == nil {
		return health, told.RotationRate
	}
	health.Verdict = basev1.DiskHealth_VERDICT_GOOD
	if reason := told.failing(); reason != "" {
		health.Verdict, health.Reason = basev1.DiskHealth_VERDICT_FAILING, reason
	}
	return health, told.RotationRate
}

// failing says why a disk is about to fail; empty: it says that it is well.
func (s *smart) failing() string {
	switch {
	case !s.Status.Passed:
		return "it says itself that it is failing"
	case s.NVMe != nil && s.NVMe.SpareThreshold > 0 && s.NVMe.AvailableSpare < s.NVMe.SpareThreshold:
		return fmt.Sprintf("it has only %d percent of its spare blocks left", max(0, s.NVMe.AvailableSpare))
	case s.NVMe != nil && s.NVMe.MediaErrors > 0:
		return fmt.Sprintf("it could not read back %d blocks", s.NVMe.MediaErrors)
	case s.ATA == nil:
		return ""
	}
	for _, attribute := range s.ATA.Table {
		if (attribute.ID == pendingSectors || attribute.ID == uncorrectableSectors) && attribute.Raw.Value > 0 {
			return fmt.Sprintf("it could not read back %d sectors", attribute.Raw.Value&0xffffffff)
		}
	}
	return ""
}
