package pages

func (v *view) security() []Part                 { return nil }
func (v *view) bases() Page                      { return v.nowhere() }
func (v *view) pair() Page                       { return v.nowhere() }
func (v *view) deedPage(string) func(*view) Page { return (*view).nowhere }
